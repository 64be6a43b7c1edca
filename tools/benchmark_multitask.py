"""The mixture of experts beside its dense counterparts, several seeds, one table.

    python tools/benchmark.py multitask items --seeds 3                  every row, then surgery
    python tools/benchmark.py multitask items --seeds 1 --rows moe dense     two rows of one seed
    python tools/benchmark.py multitask shared --seeds 2            four small real sets

Every model has equal backbone FLOPs and sees equal samples of each task. Each row is one or several
runs of configs/moe, into OUTPUT/ROW_SEED; a run that is finished there is read, not repeated, and
one that was stopped goes on from its checkpoint. Figures are those of the last validation.
"""

import argparse
import json
import logging
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visionlab.registry import suggest

_ROOT = Path(__file__).resolve().parent.parent
_CONFIGS = _ROOT / "configs" / "moe"
INFORMATION = "train/information_normalised"
_OFF = "task.routing=null"


@dataclass(frozen=True)
class Row:
    """One row of the table: its name, its words, and config + overrides of each of its runs."""

    name: str
    what: str
    runs: Sequence[tuple[str, ...]]


@dataclass(frozen=True)
class Comparison:
    """Rows over one set of tasks.

    Attributes:
        rows: name -> row.
        figures: task -> the metric that stands for it.
        extend: config of a new task, and the task whose routers it starts from.
    """

    rows: Sequence[Row]
    figures: dict[str, str]
    extend: tuple[str, str] | None = None


COMPARISONS = {
    "items": Comparison(
        [
            Row("moe", "MoE, three tasks", [("items_in_the_wild",)]),
            Row("moe_off", "MoE, information loss off", [("items_in_the_wild", _OFF)]),
            Row("dense", "dense, three tasks", [("items_dense",)]),
            Row(
                "single",
                "dense, one model a task",
                [(f"items_single_task_{t}",) for t in ("digits", "boxes", "pixels")],
            ),
        ],
        {"digits": "top1", "boxes": "ap50", "pixels": "miou"},
        extend=("items_new_task", "digits"),
    ),
    "shared": Comparison(
        [
            Row("moe", "MoE, four tasks", [("shared_data",)]),
            Row("dense", "dense, four tasks", [("shared_data_dense",)]),
        ],
        {"objects": "top1", "cells": "ap50", "things": "ap50", "roads": "miou"},
    ),
}


def main() -> None:
    """Train what is missing, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", choices=sorted(COMPARISONS), help="which comparison")
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0, 1, ... (default 3)")
    parser.add_argument("--rows", nargs="+", metavar="ROW", help="only these (default: all)")
    parser.add_argument("--output", type=Path, help="default runs/moe_DATA")
    parser.add_argument("--no-surgery", action="store_true", help="leave pruning and the new task")
    parser.add_argument("--table", action="store_true", help="train nothing, show what is there")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="in every run")
    args = parser.parse_args()
    logging.basicConfig(format="%(message)s")
    chosen = COMPARISONS[args.data]
    known = [row.name for row in chosen.rows]
    if unknown := [name for name in args.rows or [] if name not in known]:
        parser.error(f"no row '{unknown[0]}'. {suggest(unknown[0], known)}")
    rows = [row for row in chosen.rows if row.name in (args.rows or known)]
    output, seeds = args.output or Path(f"runs/moe_{args.data}"), range(args.seeds)
    for seed in [] if args.table else seeds:
        for row in rows:
            for run in row.runs:
                train(row, run, seed, output, args.set)
        if rows[0].name == "moe" and not args.no_surgery:
            operate(output / f"moe_{seed}", chosen.extend)
    print(table(rows, chosen.figures, seeds, output))
    for text in surgery_tables(seeds, output):
        print(f"\n{text}")


def folder_of(row: Row, run: tuple[str, ...], seed: int, output: Path) -> Path:
    """Where a run lies: ``dense_0``; ``single_boxes_0`` where a row has several runs."""
    part = run[0].rpartition("_")[2] if len(row.runs) > 1 else ""
    return output / "_".join(filter(None, [row.name, part, str(seed)]))


def train(
    row: Row, run: tuple[str, ...], seed: int, output: Path, overrides: Sequence[str]
) -> None:
    """One run, unless it is finished."""
    from visionlab import config as configs
    from visionlab.tasks import training

    folder = folder_of(row, run, seed, output)
    if (folder / "results.json").exists():  # written last
        return
    name, *own = run
    path = _CONFIGS / f"{name}.yaml"
    print(f"{row.what}, seed {seed}: {path.name} into {folder}", flush=True)
    config = configs.read(path, [*own, f"seed={seed}", f"output={folder}", *overrides])
    configs.check(config, str(path))
    last = folder / "last.ckpt"
    training.run(config, resume=last if last.exists() else None)


def operate(folder: Path, extend: tuple[str, str] | None) -> None:
    """Prune the model of a run and teach it a new task: ``tools/evaluate.py surgery``."""
    from visionlab.tasks import surgery

    if (folder / "surgery.json").exists():
        return
    parser = argparse.ArgumentParser()
    surgery.add_arguments(parser)
    arguments = [str(folder / "last.ckpt")]
    if extend is not None:
        arguments += ["--extend", str(_CONFIGS / f"{extend[0]}.yaml"), "--source", extend[1]]
    surgery.run(parser.parse_args(arguments))


def figures(row: Row, names: dict[str, str], seed: int, output: Path) -> dict[str, float] | None:
    """Task -> percent, their ``mean``, and ``information``; None if a run is missing."""
    from visionlab.tasks.curves import read_curves

    found: dict[str, float] = {}
    for run in row.runs:
        folder = folder_of(row, run, seed, output)
        if not (folder / "results.json").exists():
            return None
        curves = read_curves(folder / "metrics.csv")
        values = {task: curves.get(f"val/{task}_{metric}") for task, metric in names.items()}
        found |= {task: curve[-1][1] for task, curve in values.items() if curve}
        if INFORMATION in curves:
            found["information"] = curves[INFORMATION][-1][1]
    return {**found, "mean": statistics.mean(found[task] for task in names)}


def table(rows: Sequence[Row], names: dict[str, str], seeds: Sequence[int], output: Path) -> str:
    """Mean over seeds, and each seed in brackets."""
    from visionlab.tasks.tables import format_table

    lines = []
    for row in rows:
        found = [f for seed in seeds if (f := figures(row, names, seed, output)) is not None]
        line: dict[str, Any] = {"model": row.what}
        line |= {f"{c}, {m}": over_seeds([f[c] for f in found]) for c, m in names.items()}
        line["mean"] = over_seeds([f["mean"] for f in found])
        shares = [f["information"] for f in found if "information" in f]
        lines.append({**line, "information / ceiling": over_seeds(shares, digits=2)})
    return format_table(lines, "Percent: mean over seeds (each seed)")


def over_seeds(values: Sequence[float], *, digits: int = 1) -> str:
    """``48.2 (47.9, 48.5)``; empty without a value."""
    if not values:
        return ""
    each = ", ".join(f"{v:.{digits}f}" for v in values)
    return f"{statistics.mean(values):.{digits}f} ({each})"


def surgery_tables(seeds: Sequence[int], output: Path) -> list[str]:
    """The tables of ``surgery.json``: figures over seeds, counts of the first seed."""
    from visionlab.tasks.tables import format_table

    paths = [output / f"moe_{seed}" / "surgery.json" for seed in seeds]
    reports = [json.loads(path.read_text()) for path in paths if path.exists()]
    texts = []
    for title in ("Pruned to a task", "New task"):
        per_seed = [report[title] for report in reports if title in report]
        lines = [
            {key: _joined([row[key] for row in same]) for key in same[0]} for same in zip(*per_seed)
        ]
        if lines:
            texts.append(format_table(lines, f"{title}: mean over seeds (each seed)"))
    return texts


def _joined(values: Sequence[Any]) -> Any:
    """One value where all seeds agree, the range of counts, else mean and each."""
    if len(set(values)) == 1 or not all(isinstance(v, int | float) for v in values):
        return values[0]
    if all(isinstance(v, int) for v in values):
        return f"{min(values)}..{max(values)}"
    return over_seeds(values)


if __name__ == "__main__":
    main()
