"""Masks of several colours beside random and block masks: equal pre-training, then transfer.

    python tools/benchmark.py transfer --seeds 3                              every mask and task
    python tools/benchmark.py transfer --seeds 1 --masks random green --tasks frozen

Each run is one of configs/transfer: 18 pre-trainings of about a CPU-minute on the CIFAR-10 excerpt,
then k-NN, a linear probe, and short runs of classification, segmentation and detection from each
encoder and from the same encoders untrained. What is finished in OUTPUT is read, not repeated; what
was stopped goes on. Needs the evaluation excerpts (datasets.md).
"""

import argparse
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

os.environ.setdefault("TIMM_FUSED_ATTN", "0")  # its backward is slow on CPUs, see the config

_CONFIGS = Path(__file__).resolve().parent.parent / "configs" / "transfer"
MASKS = ("random", "green", "block", "blue", "red", "purple")
TASKS = {
    "frozen": ("CIFAR-10", "frozen_cifar10"),
    "segmentation": ("CamVid", "seg_camvid"),
    "detection": ("COCO", "det_coco"),
    "classification": ("CIFAR-10", "cls_cifar10"),
}
_NOTE = (
    "Percent, mean +- deviation over seeds (number of runs). Encoder of 6 blocks x 128 on a grid "
    "of 8x8 patches, one epoch of 45,000 images of 32x32. CIFAR-10: 5,000 / 2,500 validation "
    "images; CamVid at 80x60 px, 101 frames; COCO: 128 pictures, all objects as one class. Short "
    "runs: read differences against the deviation, and no column as a benchmark of its data set."
)


def main() -> None:
    """Run what is missing, print the table, publish it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds (%(default)s)")
    parser.add_argument("--masks", nargs="+", default=list(MASKS), help="any masks of the registry")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--output", type=Path, default=Path("runs/transfer"))
    parser.add_argument("--set", nargs="+", default=[], metavar="key=value",
                        help="overrides of the pre-trainings")  # fmt: skip
    args = parser.parse_args()
    logging.basicConfig(format="%(message)s")
    rows: list[dict[str, Any]] = []
    for seed in range(args.seeds):  # seed by seed, so that a table that is cut off is a fair one
        paths = [pretrain(mask, seed, args.output, args.set) for mask in args.masks]
        rows += transfer(paths, args.tasks, args.output)
    show(rows)


def pretrain(mask: str, seed: int, output: Path, overrides: Sequence[str]) -> Path:
    """The encoder of one mask and seed: trained, resumed, or found."""
    from visionlab import config as configs
    from visionlab.tasks import training
    from visionlab.tasks.run_folder import progress

    path, folder = _CONFIGS / "pretrain_cifar10.yaml", output / f"{mask}_{seed}"
    own = [f"task.model.mask={mask}", f"seed={seed}", f"output={folder}"]
    config = configs.read(path, [*own, *overrides])
    configs.check(config, str(path))
    standing = progress(config)
    if standing != "finished":
        training.run(config, folder / "last.ckpt" if standing == "begun" else None)
    return folder / "last.ckpt"


def transfer(paths: Sequence[Path], tasks: Sequence[str], output: Path) -> list[dict[str, Any]]:
    """Figures of the encoders of one seed, and of the same encoder untrained, on each task."""
    from visionlab.tasks import transfer as command
    from visionlab.tasks.encoders import read_encoder, write_untrained

    texts = {t: f"{name}={_CONFIGS / config}.yaml" for t, (name, config) in TASKS.items()}
    chosen = command.read_tasks(
        [texts[t] for t in tasks if t != "frozen"],
        [texts[t] for t in tasks if t == "frozen"],
        overrides=[],
        split="val",
    )
    encoders = [read_encoder(path) for path in paths]
    encoders.insert(0, write_untrained(encoders[0], output / "untrained"))
    folder = output / "downstream"
    return [
        row
        for encoder in encoders
        for task in chosen
        for row in command.run_one(encoder, task, encoder.seed, folder)
    ]


def show(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print and publish the table."""
    from visionlab.figures import Column, markdown_table, measured, publish
    from visionlab.tasks.transfer import grouped

    groups = grouped(rows)
    names = list(dict.fromkeys(column for columns in groups.values() for column in columns))
    table = measured(
        "masking.transfer",
        "Transfer of encoders that were pre-trained under different masks",
        head="masks",
        columns=[Column(name, f"{{column{i}}}") for i, name in enumerate(names)],
        figures=[_figure(group, columns, names) for group, columns in groups.items()],
        note=_NOTE,
        source="run folder",
    )
    print(f"\n{table.title}\n\n{markdown_table(table, full=True)}")
    publish(table)


def _figure(group: str, columns: Mapping[str, Sequence[float]], names: Sequence[str]) -> Any:
    from visionlab.figures import Figure

    values: dict[str, float | str] = {}
    spread: dict[str, tuple[float, float]] = {}
    for i, name in enumerate(names):
        found = columns.get(name, [])
        values[f"column{i}"] = _cell(found)
        if found:
            values[f"mean{i}"] = round(mean(found), 3)
            spread[f"mean{i}"] = (min(found), max(found))
    return Figure(group, values, spread)


def _cell(values: Sequence[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.2f} (1)" if values else "-"
    return f"{mean(values):.2f} +- {stdev(values):.2f} ({len(values)})"


if __name__ == "__main__":
    main()
