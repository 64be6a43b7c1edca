"""The figures of a trained task on one split, all in percent: what a table of transfer shows."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities import move_data_to_device

from visionlab.data.images import ImageData
from visionlab.data.mixture import TaskMixture
from visionlab.heads.classifier import ImageClassifier
from visionlab.heads.multitask import MultiTaskModel
from visionlab.tasks.multitask_evaluation import evaluate_task, evaluating
from visionlab.tasks.multitask_metrics import ClassificationMetric


class Scores:
    """Evaluation after training: one row for each figure of each task.

    Args:
        split: split that is scored.
    """

    title = "Scores"

    def __init__(self, *, split: str = "val") -> None:
        self.split = split

    def run(self, task: Any, data: Any, output: Path) -> list[dict[str, Any]]:
        """Rows of task, kind of task, figure, percent; the main figure of a task first.

        Raises:
            ValueError: the task is neither a classifier nor a multi-task model.
        """
        device = task.device
        with torch.autocast(device.type, torch.bfloat16, enabled=uses_bf16(task.run_config)):
            figures = score(task.model, data, self.split)
        return [
            {"task": name, "kind": kind, "figure": figure, "percent": round(value, 4)}
            for name, (kind, values) in figures.items()
            for figure, value in values.items()
        ]


def uses_bf16(config: Mapping[str, Any] | None) -> bool:
    """Whether a run trains under bfloat16 autocast."""
    trainer = (config or {}).get("trainer") or {}
    return str(trainer.get("precision", "")).startswith("bf16")


def check_scorable(model: Any, data: Any) -> None:
    """Raise unless these can be scored.

    Raises:
        ValueError: no image classifier on images, nor a multi-task model on a task mixture.
    """
    classifier = isinstance(model, ImageClassifier) and isinstance(data, ImageData)
    if not classifier and not (isinstance(model, MultiTaskModel) and isinstance(data, TaskMixture)):
        raise ValueError(
            "scores are for an image classifier on images and for a multi-task model on a task "
            f"mixture, got {type(model).__name__} on {type(data).__name__}"
        )


def score(model: Any, data: Any, split: str) -> dict[str, tuple[str, dict[str, float]]]:
    """Task -> its kind and its figures."""
    check_scorable(model, data)
    if isinstance(model, ImageClassifier):
        return {"classes": ("classification", _classifier(model, data, split))}
    return {
        name: (str(model.head(name).kind), evaluate_task(model, data, name, split=split))
        for name in data.tasks
    }


@torch.no_grad()
def _classifier(model: ImageClassifier, data: ImageData, split: str) -> dict[str, float]:
    device = next(model.parameters()).device
    metric = ClassificationMetric(model.head.out_features).to(device)
    with evaluating(model):
        for raw in data.loader(split):
            batch = data.on_after_batch_transfer(move_data_to_device(raw, device), 0)
            metric.update(model(batch["image"]).float(), batch)
    return metric.compute()
