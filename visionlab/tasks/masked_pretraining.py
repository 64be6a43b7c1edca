"""Masked pre-training (MAE, arXiv 2111.06377; ColorMAE, arXiv 2407.13036)."""

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor

from visionlab.masking.autoencoder import MAEOutput, MaskedAutoencoder
from visionlab.tasks.base import Task
from visionlab.tasks.optimizers import Recipe
from visionlab.tasks.pictures import PictureOfReconstruction


class MaskedPretraining(Task):
    """Trains a masked autoencoder.

    Masks are drawn on the device as a pure function of (seed, rank, batch number), or, for runs
    that may be continued on another number of ranks, of (seed, epoch, sample index).

    Args:
        model: the autoencoder.
        optimizer: recipe; the paper's is AdamW at 1.5e-4 per 256 images.
        mask_key: ``"step"`` (fast) or ``"sample"``.
        picture_every_epochs: draw reconstructions of validation (else training) images so often;
            0 draws none.
        nonfinite_limit: skipped steps before the run stops.
        compile: run the step through ``torch.compile``.
    """

    def __init__(
        self,
        model: MaskedAutoencoder,
        optimizer: Recipe | None = None,
        *,
        mask_key: Literal["step", "sample"] = "step",
        picture_every_epochs: int = 0,
        nonfinite_limit: int = 10,
        compile: bool = False,
    ) -> None:
        super().__init__(model, optimizer, nonfinite_limit=nonfinite_limit, compile=compile)
        self.mask_key = mask_key
        self.pictures = PictureOfReconstruction(picture_every_epochs)

    def loss(self, batch: Any, batch_idx: int) -> Mapping[str, Tensor]:
        """Reconstruction error of the hidden patches."""
        return {"loss": self.masked(batch, batch_idx).loss}

    def masked(self, batch: Any, batch_idx: int) -> MAEOutput:
        """The masked forward pass of a training batch."""
        epoch = self.current_epoch
        fraction = epoch + batch_idx / max(self.trainer.num_training_batches, 1)
        if self.mask_key == "sample":
            return self.model(
                batch["image"], key=(self.seed, epoch), index=batch["index"], epoch=fraction
            )
        step = epoch * self.trainer.num_training_batches + batch_idx
        return self.model(batch["image"], key=(self.seed, self.global_rank, step), epoch=fraction)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Reconstruction error under masks that are the same in every epoch."""
        out = self.model(batch["image"], key=(self.seed, 0xA11), index=batch["index"], epoch=0)
        self.log_mean("val/loss", out.loss, count=len(batch["index"]))

    def on_train_epoch_end(self) -> None:
        """Check for divergence, draw pictures."""
        super().on_train_epoch_end()
        self.pictures.draw(self)
