"""The per-task table of a multi-task model: what it reaches, on which split, with what cost."""

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities import move_data_to_device
from torch import nn

from visionlab import atomic
from visionlab.data.mixture import TaskMixture
from visionlab.heads.multitask import MultiTaskModel
from visionlab.tasks.multitask_metrics import create_metric
from visionlab.tasks.tables import format_table
from visionlab.tasks.trust import add_trust_code


def prepared(data: TaskMixture, batches: Iterable[Any], device: torch.device) -> Iterator[Any]:
    """Batches on a device, normalised as in training."""
    for batch in batches:
        yield data.on_after_batch_transfer(move_data_to_device(batch, device), 0)


@torch.no_grad()
def evaluate_task(
    model: MultiTaskModel, data: TaskMixture, task: str, *, split: str, limit: int | None = None
) -> dict[str, float]:
    """Figures of one task in percent, the main one first.

    Args:
        model: in any mode; left in it.
        data: with that task.
        task: which.
        split: of the data.
        limit: largest number of batches; all if None.

    Raises:
        ValueError: unknown task, or no such split.
    """
    head = model.head(task)
    loaders = data.loaders(split)
    if task not in loaders:
        raise ValueError(f"the data have no split '{split}' of the task '{task}'")
    device = next(model.parameters()).device
    metric = create_metric(head).to(device)
    with evaluating(model):
        for batch in prepared(data, islice(loaders[task], limit), device):
            metric.update(model.predict(batch["image"], task=task, size=batch.get("size")), batch)
    figures = metric.compute()
    return {metric.main: figures[metric.main], **figures}


class evaluating:
    """Eval mode within a block; every module's own mode afterwards."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def __enter__(self) -> None:
        self._modes = [(m, m.training) for m in self.model.modules()]
        self.model.eval()

    def __exit__(self, *_: object) -> None:
        for module, mode in self._modes:
            module.training = mode


class TaskTable:
    """Evaluation after training: one row for each task, and their mean.

    Args:
        split: split that is scored.
        limit: largest number of batches of each task; all if None.
    """

    title = "Tasks"

    def __init__(self, *, split: str = "val", limit: int | None = None) -> None:
        self.split, self.limit = split, limit

    def run(self, task: Any, data: Any, output: Path) -> list[dict[str, Any]]:
        """Rows of task, head, number of pictures, figure, further figures."""
        rows: list[dict[str, Any]] = []
        for name in task.model.tasks:
            figures = evaluate_task(task.model, data, name, split=self.split, limit=self.limit)
            (main, value), *others = figures.items()
            rows.append(
                {
                    "task": name,
                    "kind": task.model.head(name).kind,
                    "pictures": len(data.datasets[name].split(self.split)),
                    "figure": main,
                    "percent": round(value, 2),
                    "others": ", ".join(f"{n} {v:.2f}" for n, v in others),
                }
            )
        mean = sum(row["percent"] for row in rows) / len(rows)
        return [*rows, {"task": "mean", "percent": round(mean, 2)}]


def add_arguments(parser: ArgumentParser) -> None:
    """Arguments of ``tools/evaluate.py tasks``."""
    add_trust_code(parser)
    parser.add_argument("checkpoint", type=Path, help="last.ckpt of a multi-task run")
    parser.add_argument("--split", default="val", help="split that is scored (default val)")
    parser.add_argument("--limit", type=int, help="largest number of batches of each task")


def run(args: Namespace) -> None:
    """Print the table of a checkpoint and write ``tasks.json`` beside it."""
    task, data = load_multitask(args.checkpoint, trust_code=args.trust_code)
    evaluation = TaskTable(split=args.split, limit=args.limit)
    rows = evaluation.run(task, data, args.checkpoint.parent)
    print(format_table(rows, evaluation.title))
    atomic.write_text(json.dumps(rows, indent=2), args.checkpoint.parent / "tasks.json")


def load_multitask(path: Path, *, trust_code: bool = False) -> tuple[Any, TaskMixture]:
    """Task and data of a multi-task checkpoint.

    Raises:
        ValueError: the checkpoint is of another kind of run.
    """
    from visionlab.tasks.training import load_task

    task, data = load_task(path, trust_code=trust_code)
    if not isinstance(task.model, MultiTaskModel) or not isinstance(data, TaskMixture):
        raise ValueError(
            f"{path} is a run of {type(task).__name__}; this command reads multi-task runs, such "
            "as that of configs/moe/items_in_the_wild.yaml"
        )
    return task, data
