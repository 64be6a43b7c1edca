"""Memory of a long run: the quickstart with small batches, its resident memory against the step.

python tools/benchmark.py memory                       20,000 steps of 8 images, about 10 minutes
python tools/benchmark.py memory --steps 1000          a short look

The run is a process of its own, sampled from outside (Linux: VmRSS). Growth is the median of the
last tenth of the steps minus the median of the second tenth: the first tenth warms up.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
Sample = tuple[int, float]  # step, MB


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, sample, report; returns 1 if memory grew by more than the limit."""
    args = parser().parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        output = args.output or Path(scratch) / "run"
        started = time.monotonic()
        samples = watch(command(args, output), output / "metrics.csv", every=args.every)
        seconds = time.monotonic() - started
    report = summarise(samples, args.steps)
    report |= {"seconds": round(seconds), "batch": args.batch, "limit_mb": args.limit}
    if args.samples:
        args.samples.write_text(json.dumps({**report, "samples": samples}))
    for name, value in report.items():
        print(f"{name:>14}  {value}")
    return int(report["growth_mb"] > args.limit)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--config", type=Path, default=ROOT / "configs" / "quickstart.yaml")
    p.add_argument("--steps", type=int, default=20_000)
    p.add_argument("--batch", type=int, default=8)
    p.add_argument("--limit", type=float, default=16.0, help="MB of growth that pass (%(default)s)")
    p.add_argument("--every", type=float, default=0.5, help="seconds between samples")
    p.add_argument("--output", type=Path, help="run folder; a temporary one if not given")
    p.add_argument("--samples", type=Path, help="JSON file for every sample")
    p.add_argument("overrides", nargs="*", metavar="key=value", help="of the config")
    return p


def command(args: argparse.Namespace, output: Path) -> list[str]:
    """The run as a user would start it, without evaluations, which are not part of the steps."""
    return [
        sys.executable, str(ROOT / "tools" / "train.py"), str(args.config), f"output={output}",
        f"data.batch_size={args.batch}", "trainer.max_epochs=-1", f"trainer.max_steps={args.steps}",
        "trainer.enable_progress_bar=false", "evaluations=[]", *args.overrides,
    ]  # fmt: skip


def watch(command: Sequence[str], curves: Path, *, every: float) -> list[Sample]:
    """Memory of the process, by the step that it had logged last.

    Raises:
        RuntimeError: the run failed.
    """
    samples = []
    with subprocess.Popen(command) as process:
        while process.poll() is None:
            time.sleep(every)
            step, memory = last_step(curves), resident_mb(process.pid)
            if step is not None and memory is not None:
                samples.append((step, memory))
    if process.returncode:
        raise RuntimeError(f"the run ended with status {process.returncode}")
    return samples


def last_step(curves: Path) -> int | None:
    """Step of the last row of a run's metrics.csv."""
    if not curves.is_file():
        return None
    with curves.open("rb") as file:
        file.seek(max(0, curves.stat().st_size - 200))
        rows = file.read().decode().splitlines()
    first = rows[-1].split(",")[0] if rows else ""
    return int(first) if first.isdigit() else None


def resident_mb(pid: int) -> float | None:
    """Resident memory of a process in MB; None once it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except FileNotFoundError:
        return None
    found = [int(line.split()[1]) for line in lines if line.startswith("VmRSS:")]
    return found[0] / 1024 if found else None


def summarise(samples: Sequence[Sample], steps: int) -> dict[str, float]:
    """Medians of the second and the last tenth of the steps, their difference, and the peak."""
    early = [mb for step, mb in samples if 0.1 * steps <= step < 0.2 * steps]
    late = [mb for step, mb in samples if step >= 0.9 * steps]
    if not early or not late:
        raise RuntimeError(f"{len(samples)} samples do not cover {steps} steps; lower --every")
    before, after = statistics.median(early), statistics.median(late)
    return {
        "steps": steps,
        "early_mb": round(before, 1),
        "late_mb": round(after, 1),
        "growth_mb": round(after - before, 1),
        "peak_mb": round(max(mb for _, mb in samples), 1),
    }


if __name__ == "__main__":
    sys.exit(main())
