"""Time until something happens: imports, --help, the message about a misspelt key.

    python tools/benchmark.py start

Each is a fresh process, CPU time of the fastest of a few, since other programs disturb the rest.
"""

import argparse
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from visionlab.figures import Column, Figure, FigureTable, at_most, measured, publish

ROOT = Path(__file__).resolve().parents[1]
TRAIN = str(ROOT / "tools" / "train.py")
COMMANDS: dict[str, tuple[list[str], float]] = {
    "`import visionlab`": (["-c", "import visionlab"], 0.1),
    "`import visionlab.rotation`": (
        ["-c", "import visionlab.rotation as r; r.Camera, r.RotationEstimator"],
        0.5,
    ),
    "`tools/train.py --help`": ([TRAIN, "--help"], 1.0),
    "a misspelt key": ([TRAIN, "configs/quickstart.yaml", "task.modle.mask=red"], 1.0),
    "a misspelt component": ([TRAIN, "configs/quickstart.yaml", "task.model.mask=gren"], 1.0),
    "a misspelt file": ([TRAIN, "configs/quickstrat.yaml"], 1.0),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    p = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    p.add_argument("--repeats", type=int, default=5)
    repeats = p.parse_args(arguments).repeats
    bare = min(seconds(["-c", "pass"]) for _ in range(repeats))
    figures = []
    for name, (command, limit) in COMMANDS.items():
        times = [seconds(command) for _ in range(repeats)]
        # an import is what it adds to a bare interpreter; a command is the whole process
        less = bare if name.startswith("`import") else 0.0
        values = {"s": max(0.0, min(times) - less)}
        spread = {"s": [max(0.0, t - less) for t in (min(times), max(times))]}
        print(f"{name:28s} {values['s']:.3f} s", flush=True)
        figures.append(Figure(name, values, spread=spread, claims=[at_most("s", limit)]))
    publish(table_of(figures, repeats))
    return 0


def seconds(command: Sequence[str]) -> float:
    """CPU time, user and system, of a Python process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *command], cwd=ROOT, check=False, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def table_of(figures: Sequence[Figure], repeats: int) -> FigureTable:
    """The records."""
    return measured(
        "start.times",
        "Time until something happens",
        head="what",
        columns=[Column("CPU seconds", "{s:.2f}")],
        figures=figures,
        note=f"Fresh processes, fastest of {repeats}; imports without the bare interpreter.",
        units={"s": "s CPU time"},
    )


if __name__ == "__main__":
    sys.exit(main())
