"""Linear probing of a frozen encoder by the MAE recipe (arXiv 2111.06377, A.1)."""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from visionlab.heads.classifier import ImageClassifier
from visionlab.tasks.finetuning import Finetuning, check_labels
from visionlab.tasks.optimizers import Lars, Recipe


class LinearProbing(Finetuning):
    """Trains the linear layer alone: BatchNorm without affine, plain cross entropy, LARS.

    Args:
        model: an `ImageClassifier` with ``freeze_backbone=True`` and ``norm="batch"``.
        optimizer: recipe; LARS at 0.1 per 256 images if None.
        nonfinite_limit: skipped steps before the run stops.

    Raises:
        ValueError: the backbone is not frozen.
    """

    def __init__(
        self,
        model: ImageClassifier,
        optimizer: Recipe | None = None,
        *,
        nonfinite_limit: int = 10,
    ) -> None:
        if not model.freeze_backbone:
            raise ValueError(
                "linear probing needs task.model.freeze_backbone=true; to train the backbone use "
                "the task 'finetuning'"
            )
        super().__init__(
            model,
            optimizer or Lars(0.1, lr_per_images=256, warmup_epochs=10),
            label_smoothing=0.0,
            mixup=0.0,
            cutmix=0.0,
            random_erasing=0.0,
            nonfinite_limit=nonfinite_limit,
        )

    def loss(self, batch: Any, batch_idx: int) -> Tensor:
        """Cross entropy."""
        check_labels(batch["label"], self.classes)
        return F.cross_entropy(self.model(batch["image"]).float(), batch["label"])

    def model_to_train(self) -> nn.Module:
        """The head; normalisation has no parameters."""
        return self.model.get_submodule("head")
