"""The mixture of experts beside its dense counterparts, several seeds, one table.

    python tools/benchmark.py multitask items --seeds 3                  every row, then surgery
    python tools/benchmark.py multitask items --seeds 1 --rows moe dense     two rows of one seed
    python tools/benchmark.py multitask shared --seeds 2            four small real sets

Every model has equal backbone FLOPs and sees equal samples of each task. Each row is one or several
runs of configs/moe, into OUTPUT/ROW_SEED; a run that is finished there is read, not repeated, and
one that was stopped goes on from its checkpoint. Figures are those of the last validation.
"""

import argparse
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from visionlab.registry import suggest

_ROOT = Path(__file__).resolve().parent.parent
_CONFIGS = _ROOT / "configs" / "moe"
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
        title: of its table.
        note: what to know when reading it.
        rows: the MoE first.
        metrics: task -> the metric that stands for it.
        extend: config of a new task, and the task whose routers it starts from.
    """

    title: str
    note: str
    rows: Sequence[Row]
    metrics: dict[str, str]
    extend: tuple[str, str] | None = None


COMPARISONS = {
    "items": Comparison(
        "Items in the wild: one model for three tasks",
        "Mean over seeds (each seed). 1,000 steps, the same 16,000 pictures of each task for "
        "every row, equal backbone FLOPs; 1,000 test pictures a task, with digits and photographs "
        "that training never saw. Recipe chosen on held-out training pictures. Fewer figures in "
        "brackets: fewer seeds.",
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
        "Four small real sets: CIFAR-10 excerpt, BCCD, 128 pictures of COCO, CamVid",
        "Mean over seeds (each seed). 300 steps from scratch; sets this small show that everything "
        "works, and no ranking; 128 pictures teach none of COCO's 80 classes.",
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
            train(row, seed, output, args.set)
        if rows[0].name == "moe" and chosen.extend is not None and not args.no_surgery:
            operate(output / f"moe_{seed}", *chosen.extend)
    show(args.data, chosen, rows, seeds, output)


def folders_of(row: Row, seed: int, output: Path) -> list[Path]:
    """Where its runs lie: ``dense_0``; ``single_boxes_0``, ... where a row has several."""
    parts = [run[0].rpartition("_")[2] if len(row.runs) > 1 else "" for run in row.runs]
    return [output / "_".join(filter(None, [row.name, part, str(seed)])) for part in parts]


def train(row: Row, seed: int, output: Path, overrides: Sequence[str]) -> None:
    """The runs of a row that are not finished."""
    from visionlab import config as configs
    from visionlab.tasks import training

    for run, folder in zip(row.runs, folders_of(row, seed, output)):
        if (folder / "results.json").exists():  # written last
            continue
        name, *own = run
        path = _CONFIGS / f"{name}.yaml"
        print(f"{row.what}, seed {seed}: {path.name} into {folder}", flush=True)
        config = configs.read(path, [*own, f"seed={seed}", f"output={folder}", *overrides])
        configs.check(config, str(path))
        last = folder / "last.ckpt"
        training.run(config, resume=last if last.exists() else None)


def operate(folder: Path, new_task: str, source: str) -> None:
    """Prune the model of a run and teach it a new task: ``tools/evaluate.py surgery``."""
    from visionlab.tasks import surgery

    if (folder / "surgery.json").exists():
        return
    parser = argparse.ArgumentParser()
    surgery.add_arguments(parser)
    extend = ["--extend", str(_CONFIGS / f"{new_task}.yaml"), "--source", source]
    surgery.run(parser.parse_args([str(folder / "last.ckpt"), *extend]))


def show(
    name: str, chosen: Comparison, rows: Sequence[Row], seeds: Sequence[int], output: Path
) -> None:
    """Print and publish every table for which there are runs."""
    from visionlab.figures import markdown_table, publish
    from visionlab.tasks import multitask_comparison as tables

    scores = {
        row.what: {
            seed: found
            for seed in seeds
            if (found := tables.last_scores(folders_of(row, seed, output), chosen.metrics))
        }
        for row in rows
    }
    words = {row.name: row.what for row in chosen.rows}
    made = [
        tables.comparison_table(
            f"moe.{name}",
            chosen.title,
            scores,
            chosen.metrics,
            note=chosen.note,
            within=words.get("single"),
            ahead_of=words["dense"],
        )
    ]
    reports = tables.surgery_reports([output / f"moe_{seed}" for seed in seeds])
    if reports and chosen.extend is not None:
        made.append(tables.pruning_table("moe.pruning", "Pruned to one task", reports))
        made.append(tables.extension_table("moe.extension", "A new task", reports))
    command = f"python tools/benchmark.py multitask {name} --seeds {len(seeds)}"  # trains, too
    for table in (table.changed(command=command) for table in made):
        print(f"\n{table.title}\n\n{markdown_table(table, full=True)}")
        publish(table)
    draw_information(rows, seeds, output)


def draw_information(rows: Sequence[Row], seeds: Sequence[int], output: Path) -> None:
    """``information.png``: how tasks and experts find each other, a line for each MoE row."""
    from visionlab.plots.experts import plot_information
    from visionlab.tasks.multitask_comparison import information_history

    history = {}
    for row in rows:
        folders = [f for seed in seeds for f in folders_of(row, seed, output)]
        found = information_history([f for f in folders if (f / "results.json").exists()])
        if found:
            history[row.what] = found
    if history:
        plot_information(history, output / "information.png")
        print(f"\n{output / 'information.png'}")


if __name__ == "__main__":
    main()
