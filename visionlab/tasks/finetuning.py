"""Supervised fine-tuning of an image classifier: the MAE recipe (arXiv 2111.06377, Table 9)."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.classification import MulticlassAccuracy

from visionlab.heads.classifier import ImageClassifier
from visionlab.tasks.base import Task
from visionlab.tasks.optimizers import Recipe


class Finetuning(Task):
    """Trains every parameter with mixup, cutmix, random erasing and label smoothing, by timm.

    Layer decay belongs to the optimiser, drop path to the backbone, RandAugment to the data.

    Args:
        model: the classifier.
        optimizer: recipe; ``layer_decay`` 0.65 for ViT-B in the paper.
        label_smoothing: share of the target spread over all classes.
        mixup: alpha of mixup; 0 turns it off.
        cutmix: alpha of cutmix; 0 turns it off.
        random_erasing: probability of erasing a rectangle.
        nonfinite_limit: skipped steps before the run stops.
        compile: run the model through ``torch.compile``.
    """

    def __init__(
        self,
        model: ImageClassifier,
        optimizer: Recipe | None = None,
        *,
        label_smoothing: float = 0.1,
        mixup: float = 0.8,
        cutmix: float = 1.0,
        random_erasing: float = 0.25,
        nonfinite_limit: int = 10,
        compile: bool = False,
    ) -> None:
        from timm.data import Mixup
        from timm.data.random_erasing import RandomErasing

        super().__init__(model, optimizer, nonfinite_limit=nonfinite_limit, compile=compile)
        classes = model.head.out_features
        self.mixing = (
            Mixup(mixup, cutmix, label_smoothing=label_smoothing, num_classes=classes)
            if mixup or cutmix
            else None
        )
        self.erasing = RandomErasing(random_erasing, mode="pixel", device="cpu")
        self.label_smoothing = label_smoothing
        self.classes = classes
        self.top1 = MulticlassAccuracy(classes, average="micro")
        self.top5 = MulticlassAccuracy(classes, average="micro", top_k=min(5, classes))

    def loss(self, batch: Any, batch_idx: int) -> Tensor:
        """Cross entropy against mixed and smoothed targets."""
        images, target = batch["image"], batch["label"]
        check_labels(target, self.classes)
        self.erasing.device = images.device
        images = self.erasing(images)
        if self.mixing is None or len(images) % 2:  # timm mixes pairs
            return F.cross_entropy(
                self.model(images).float(), target, label_smoothing=self.label_smoothing
            )
        images, target = self.mixing(images, target)
        return torch.sum(-target * F.log_softmax(self.model(images).float(), -1), -1).mean()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Top-1 and top-5 over the validation split."""
        self._score(batch, "val")

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Top-1 and top-5 over the test split."""
        self._score(batch, "test")

    def _score(self, batch: Any, split: str) -> None:
        logits = self.model(batch["image"])
        check_labels(batch["label"], self.classes)
        for name, metric in (("top1", self.top1), ("top5", self.top5)):
            metric.update(logits, batch["label"])
            self.log(f"{split}/{name}", metric, prog_bar=name == "top1", on_epoch=True)


def check_labels(labels: Tensor, classes: int) -> None:
    """Labels of a CPU batch lie in 0..classes-1 (on a GPU the check would stall the device).

    Raises:
        ValueError: a label is out of range.
    """
    if labels.device.type == "cpu" and (labels.min() < 0 or labels.max() >= classes):
        raise ValueError(
            f"labels run from {int(labels.min())} to {int(labels.max())}, but the model has "
            f"{classes} classes (0..{classes - 1}); set task.model.num_classes"
        )
