"""One command for "how well does this encoder transfer?": train and score every downstream task.

Each encoder starts each downstream config; every run is a run of `visionlab.tasks.training` in its
own folder, so it resumes where it was cut off, and finished ones are kept. The table has a row for
each kind of encoder (label without the number of its seed) and the columns of the papers.
"""

import json
import logging
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from visionlab import atomic, checkpoint
from visionlab import config as configs
from visionlab.backbones.protocol import grid_size
from visionlab.tasks.encoders import (
    Encoder,
    build_with,
    read_encoder,
    with_encoder,
    write_untrained,
)
from visionlab.tasks.frozen_scores import check_images, write_frozen_scores
from visionlab.tasks.own_process import check_alone, one_device, run_apart
from visionlab.tasks.run_folder import progress
from visionlab.tasks.scores import check_scorable
from visionlab.tasks.tables import format_table
from visionlab.tasks.trust import add_trust_code

log = logging.getLogger("visionlab")

# figure -> its column in published tables
COLUMNS = {
    "top1": "top-1",
    "miou": "mIoU",
    "coco_map": "AP box",
    "coco_mask_map": "AP mask",
    "ap50": "AP50",
    "knn": "k-NN",
    "probe": "linear probe",
}
_HIDDEN = {"top5", "accuracy", "coco_ap50", "coco_mask_ap50"}  # in results.json, not in the table


@dataclass(frozen=True)
class Downstream:
    """A downstream task: the name of its columns and its resolved config."""

    name: str
    source: str
    config: dict[str, Any]
    frozen: bool = False


def add_arguments(parser: ArgumentParser) -> None:
    """Arguments of ``tools/evaluate.py transfer``."""
    add_trust_code(parser)
    parser.add_argument(
        "checkpoint", type=Path, nargs="+",
        help="encoders: last.ckpt of pre-trainings, exported encoders or published weights; those "
        "of one model that differ in a number at the end of their folder share a row",
    )  # fmt: skip
    parser.add_argument(
        "--config", nargs="+", default=[], metavar="[NAME=]YAML", help="downstream runs"
    )
    parser.add_argument(
        "--frozen", nargs="+", default=[], metavar="[NAME=]YAML",
        help="configs on whose data k-NN and a linear probe score the frozen encoder",
    )  # fmt: skip
    parser.add_argument("--output", type=Path, required=True, help="folder of all these runs")
    parser.add_argument(
        "--seeds", type=int, nargs="+", help="of each downstream run; the encoder's own if left out"
    )
    parser.add_argument(
        "--untrained", action="store_true", help="also start from each encoder before its training"
    )
    parser.add_argument("--split", default="val", help="split that is scored (default val)")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="key=value", help="overrides of all configs"
    )


def run(args: Namespace) -> None:
    """Check everything, run what is missing, print the table and write ``results.json``.

    Raises:
        ValueError: launched as several processes, or mistakes in what was given.
    """
    check_alone("transfer")
    tasks = read_tasks(
        args.config, args.frozen, overrides=args.set, split=args.split, trust_code=args.trust_code
    )
    encoders = [read_encoder(path) for path in args.checkpoint]
    check_labels(encoders)
    if args.untrained:
        encoders = _with_untrained(encoders, args.output, trust_code=args.trust_code)
    for task in tasks:
        _check_fit(task, encoders)
    rows = [
        row
        for encoder in encoders
        for task in tasks
        for seed in (args.seeds or [encoder.seed])
        for row in run_one(encoder, task, seed, args.output, trust_code=args.trust_code)
    ]
    table = summary(rows)
    text = json.dumps(checkpoint.plain({"table": table, "runs": rows}), indent=2)
    atomic.write_text(text, args.output / "results.json")
    print(f"\n{format_table(table, f'Transfer, {args.split} split, mean +- deviation over runs')}")
    print(f"\nruns, figures of each and this table: {args.output}")


def read_tasks(
    trained: Sequence[str],
    frozen: Sequence[str],
    *,
    overrides: Sequence[str],
    split: str,
    trust_code: bool = False,
) -> list[Downstream]:
    """Downstream configs, read and checked.

    Raises:
        ValueError: no config, or two of one name.
        ConfigError: mistakes in a config.
    """
    if not trained and not frozen:
        raise ValueError("nothing to evaluate on: give --config or --frozen, for example "
                         "--config configs/transfer/cls_cifar10.yaml")  # fmt: skip
    tasks = []
    for text, is_frozen in [*((t, False) for t in trained), *((t, True) for t in frozen)]:
        name, _, path = text.rpartition("=")
        config = configs.read(path, overrides)
        configs.check(config, path, trust_code=trust_code)
        config["evaluations"] = [{"name": "scores", "split": split}]
        tasks.append(Downstream(name or Path(path).stem, path, config, is_frozen))
    names = [(t.name, t.frozen) for t in tasks]
    if twice := sorted({n for n, f in names if names.count((n, f)) > 1}):
        raise ValueError(f"several configs are named {', '.join(twice)}; write NAME=PATH")
    return tasks


def check_labels(encoders: Sequence[Encoder]) -> None:
    """Two encoders must not write into one folder.

    Raises:
        ValueError: they would.
    """
    labels = [e.label for e in encoders]
    if twice := sorted({x for x in labels if labels.count(x) > 1}):
        raise ValueError(
            f"several encoders are labelled {', '.join(twice)}; the label is the folder of a "
            "last.ckpt, else the name of the file: rename one"
        )


def _with_untrained(
    encoders: Sequence[Encoder], output: Path, *, trust_code: bool
) -> list[Encoder]:
    folder = output / "untrained"
    made = (write_untrained(e, folder, trust_code=trust_code) for e in encoders)
    starts = list({e.path: e for e in made}.values())
    if len({e.model for e in starts}) > 1:
        starts = [replace(e, label=f"untrained_{e.model}_{e.seed}") for e in starts]
    return [*starts, *encoders]


def _check_fit(task: Downstream, encoders: Sequence[Encoder]) -> None:
    """Build the data and the model of a config, before hours of training are spent on another.

    Raises:
        FileNotFoundError: data are absent.
        ValueError: an encoder of another kind, pictures that patches do not divide, other classes.
    """
    data = configs.build(task.config["data"], key="data")
    if task.frozen:
        check_images(data, task.source)
    for encoder in encoders:
        model = build_with(task.config, encoder, task.source)
    check_scorable(model, data)
    for name, size in _picture_sizes(data, model).items():
        try:
            _check_size(model.backbone, size)
        except ValueError as error:
            raise ValueError(f"{task.source}, {name}: {error}") from error
    if hasattr(model, "heads"):
        from visionlab.tasks.multitask import check_data

        check_data(model, data.datasets)


def _picture_sizes(data: Any, model: Any) -> dict[str, tuple[int, int]]:
    """Height and width in px that the backbone will see, of each data set."""
    sizes = {}
    for name, dataset in data.datasets.items():
        if hasattr(dataset, "side"):  # the data of a task, padded to a square
            window = getattr(model.head(name), "crop", None)
            for split in dataset.datasets:
                side = dataset.side(split)
                side = side if window is None or split == "train" else min(side, window)
                sizes[f"{name} {split}"] = (side, side)
        else:
            height, width = dataset[0]["image"].shape[-2:]
            sizes[name] = (int(height), int(width))
    return sizes


def _check_size(backbone: Any, size: tuple[int, int]) -> None:
    grid_size(backbone, size)
    embed = backbone.patch_embed
    own = tuple(int(n) for n in embed.img_size)
    if embed.strict_img_size and own != size:
        raise ValueError(
            f"pictures of {size[0]}x{size[1]} px for a backbone of {own[0]}x{own[1]}; set "
            "dynamic_img_size: true in the backbone, or its img_size"
        )


def run_one(
    encoder: Encoder, task: Downstream, seed: int, output: Path, *, trust_code: bool = False
) -> list[dict[str, Any]]:
    """Rows of one encoder on one task: trained, resumed, or read if they are there.

    Raises:
        RuntimeError: a run with several devices failed.
    """
    from visionlab.tasks import training

    config = {**with_encoder(task.config, encoder.path, task.source), "seed": seed}
    name = f"{task.name}_frozen" if task.frozen else task.name
    folder = output / encoder.label / (name if seed == encoder.seed else f"{name}_seed{seed}")
    config["output"] = str(folder)
    standing = progress(config)
    if standing == "finished":
        log.info("kept: %s", folder)
    elif task.frozen:
        log.info("k-NN and probe, into %s", folder)
        write_frozen_scores(config, configs.build(config["data"], key="data"), folder)
    elif not one_device(config):
        run_apart(config, trust_code=trust_code)
    else:
        training.run(config, folder / "last.ckpt" if standing == "begun" else None)
    tables = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    own = {"encoder": encoder.label, "kind_of_encoder": encoder.group, "model": encoder.model,
           "checkpoint": encoder.path, "config": task.source, "seed": seed}  # fmt: skip
    return [{**own, "data": task.name, **row} for row in tables["Scores"]]


def summary(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row for each kind of encoder; mean, and deviation over runs where there are several."""
    return [
        {"encoder": group} | {column: _cell(values) for column, values in columns.items()}
        for group, columns in grouped(rows).items()
    ]


def grouped(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, list[float]]]:
    """Kind of encoder -> column of the table -> percent of each run."""
    groups: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        if row["figure"] in _HIDDEN or (row["figure"] == "ap50" and _has_coco(row, rows)):
            continue
        columns = groups.setdefault(_group(row, rows), {})
        columns.setdefault(_column(row, rows), []).append(row["percent"])
    return groups


def _group(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """Kind of an encoder; its own label where encoders of this kind are not of one model."""
    kind = row["kind_of_encoder"]
    several = len({r.get("model") for r in rows if r["kind_of_encoder"] == kind}) > 1
    return row["encoder"] if several else kind


def _has_coco(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> bool:
    return any(r["figure"] == "coco_map" and r["data"] == row["data"] for r in rows)


def _column(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """Name of the config, of the task where the config has several, and of the figure."""
    several = len({r["task"] for r in rows if r["data"] == row["data"]}) > 1
    data = f"{row['data']} {row['task']}" if several else row["data"]
    return f"{data} {COLUMNS.get(row['figure'], row['figure'])}"


def _cell(values: Sequence[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.2f}"
    return f"{mean(values):.2f} +- {stdev(values):.2f} ({len(values)})"
