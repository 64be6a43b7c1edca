"""The whole benchmark: each section in a process of its own, one table, one page.

A section that fails or is left out is named in the report; its committed figures are shown as what
they are, taken elsewhere and earlier.
"""

import argparse
import importlib.util
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from visionlab.atomic import write_text
from visionlab.figures import collector, markdown, page, store
from visionlab.figures.record import Column, Figure, FigureTable, at_most

# peer -> module; facebookresearch/mae is no package: --mae-repo names a checkout
PEERS = {
    "lightly": "lightly", "timm": "timm", "deepinv": "deepinv", "scikit-image (TV)": "skimage",
    "SciPy": "scipy", "PoseLib": "poselib", "OpenCV": "cv2", "ScatterMoE": "scattermoe",
    "webdataset": "webdataset", "litdata": "litdata",
}  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """What became of one step of the plan."""

    command: str
    seconds: float
    cpu_seconds: float
    status: int


def run(
    options: argparse.Namespace, program: Path, plan: Sequence[str], *, device: str = "cpu"
) -> int:
    """Measure everything of one device and write the report.

    Args:
        options: ``output``, ``figures``, ``only``, ``mae_repo``, ``runs``.
        program: tools/benchmark.py, which runs a section and keeps its figures.
        plan: sections with their arguments.
        device: ``"cpu"`` or ``"gpu"``.

    Returns:
        1 if a section failed, else 0; that a claim does not hold here is a result, no failure.
    """
    root = program.resolve().parents[1]
    chosen = [s for s in plan if fnmatchcase(s, f"{options.only}*")]
    if device == "gpu" and not _sees_cuda():
        print("the GPU section needs a CUDA device, and torch sees none here", file=sys.stderr)
        return 2
    if not chosen:
        print(f"--only {options.only} matches none of: {'; '.join(plan)}", file=sys.stderr)
        return 2
    output: Path = options.output
    fresh = output / "figures"
    output.mkdir(parents=True, exist_ok=True)
    for old in fresh.glob("*.json"):  # of an earlier report; only what is measured now counts
        old.unlink()
    outcomes = [_measure(step, program, fresh, options.mae_repo) for step in chosen]
    store.write_tables(fresh, [cost_table(outcomes, device, complete=len(chosen) == len(plan))])
    committed = store.read_folder(options.figures or root / "figures")
    taken = store.read_folder(fresh) if fresh.is_dir() else {}
    text = _report_text(taken, committed, outcomes, device, mae=options.mae_repo is not None)
    write_text(text, output / "table.md")
    records = [r for table in taken.values() for r in table.records()]
    rest = [r for k, t in committed.items() if k not in taken for r in t.records()]
    data = {"measured now": records, "not repeated": rest, "peers": peers(options.mae_repo)}
    write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", output / "table.json")
    shown = {**committed, **taken}
    written = page.write_page(output, shown, pictures=root / "pictures", runs=options.runs)
    print(text.split("\n## ", 1)[0])
    print(f"{output / 'table.md'}\n{output / 'table.json'}\n{written}")
    return int(any(o.status for o in outcomes))


def _measure(step: str, program: Path, folder: Path, mae_repo: Path | None) -> Outcome:
    """Run one section, in a process and with one thread of its own."""
    arguments = shlex.split(step)
    if mae_repo is not None and arguments[:2] == ["autoencoder", "step"]:
        arguments += ["--mae-repo", str(mae_repo.resolve())]
    print(f"$ tools/benchmark.py {step}", flush=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, str(program), *arguments, "--figures", str(folder.resolve())]
    start, used = time.perf_counter(), _cpu_of_children()
    status = subprocess.run(
        command, env=environment, cwd=program.resolve().parents[1], check=False
    ).returncode
    spent = time.perf_counter() - start
    print(f"  {spent:.0f} s" + (f", exit status {status}" if status else ""), flush=True)
    return Outcome(step, spent, _cpu_of_children() - used, status)


def cost_table(outcomes: Sequence[Outcome], device: str, *, complete: bool) -> FigureTable:
    """What the report itself costs; claimed of the whole plan on a CPU."""
    minutes, cpu = (sum(x) / 60 for x in zip(*((o.seconds, o.cpu_seconds) for o in outcomes)))
    mode = "gpu" if device == "gpu" else "quick"
    claims = [at_most("minutes", 10)] if complete and mode == "quick" else []
    values = {"minutes": minutes, "cpu": cpu, "sections": len(outcomes)}
    return collector.measured(
        f"start.{mode}",
        f"The whole benchmark, --{mode}",
        head="what",
        columns=[
            Column("minutes", "{minutes:.1f}"),
            Column("CPU minutes", "{cpu:.1f}"),
            Column("sections", "{sections}"),
        ],
        figures=[Figure(f"--{mode}", values, claims=claims)],
        units={"minutes": "min", "cpu": "min CPU time"},
        device=device,
    ).changed(command=f"python tools/benchmark.py --{mode}")


def _cpu_of_children() -> float:
    """CPU seconds of all ended child processes: what the report costs, whatever else runs here."""
    usage = os.times()
    return usage.children_user + usage.children_system


def peers(mae_repo: Path | None) -> dict[str, bool]:
    """Which peers are at hand."""
    found = {name: importlib.util.find_spec(module) is not None for name, module in PEERS.items()}
    return {"facebookresearch/mae": mae_repo is not None, **found, "Mod-Squad (its rule)": True}


def _report_text(
    taken: Mapping[str, FigureTable],
    committed: Mapping[str, FigureTable],
    outcomes: Sequence[Outcome],
    device: str,
    *,
    mae: bool,
) -> str:
    """The report as Markdown: summary, what was measured now, what was not."""
    at_hand = peers(Path() if mae else None)
    held = [holds for t in taken.values() for _, _, holds in t.claims()]
    minutes, cpu = (sum(x) / 60 for x in zip(*((o.seconds, o.cpu_seconds) for o in outcomes)))
    lines = [
        "# Benchmark", "",
        f"{collector.machine()}. {minutes:.1f} minutes, {cpu:.1f} of CPU time.",
        "Medians; one thread unless said otherwise.",
        f"Claims that hold on this machine: {sum(held)} of {len(held)} measured now.",
        f"Peers at hand: {', '.join(k for k, v in at_hand.items() if v)}.",
        f"Absent: {', '.join(k for k, v in at_hand.items() if not v) or 'none'}.",
    ]  # fmt: skip
    for outcome in outcomes:
        if outcome.status:
            lines.append(f"FAILED (exit status {outcome.status}): {outcome.command}")
    for name, wanted in (("CPU", "cpu"), ("GPU", "gpu")):
        lines += ["", f"## {name}: measured now", ""]
        now = [t for t in taken.values() if t.device == wanted]
        lines += _tables(now) or [_nothing(wanted, device)]
        before = [t for k, t in committed.items() if t.device == wanted and k not in taken]
        if before:
            lines += ["", f"## {name}: not repeated here, read from figures/", ""]
            lines += _tables(before)
    return "\n".join(lines) + "\n"


def _nothing(wanted: str, device: str) -> str:
    if wanted == "gpu" and not _sees_cuda():
        return "Needs a CUDA device; torch sees none here."
    return f"Not asked for: `python tools/benchmark.py --{'gpu' if wanted == 'gpu' else 'quick'}`."


def _tables(tables: Sequence[FigureTable]) -> list[str]:
    lines: list[str] = []
    for table in tables:
        lines += [f"### {table.title}", "", markdown.markdown_table(table, full=True), ""]
    return lines


def _sees_cuda() -> bool:
    import torch

    return torch.cuda.is_available()
