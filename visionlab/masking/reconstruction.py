"""Pictures of what a masked autoencoder predicts."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Reconstruction:
    """Pictures (B, C, H, W) in the space of the input images.

    Attributes:
        image: the input.
        masked: the input with hidden patches at 0, the mean colour of normalised images.
        prediction: the predicted hidden patches among the true visible ones.
        hidden: (B, L) bool, the mask.
        grid: (rows, columns) of patches.
        uses_target_statistics: with norm-pix the network predicts patches of zero mean and unit
            variance; mean and deviation then come from the true patch, so only the structure
            inside a patch is predicted.
    """

    image: Tensor
    masked: Tensor
    prediction: Tensor
    hidden: Tensor
    grid: tuple[int, int]
    uses_target_statistics: bool

    def viewable(
        self, mean: Sequence[float] = (0.0,), std: Sequence[float] = (1.0,)
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Image, masked image and prediction in [0, 1]; see :func:`to_viewable`."""
        hidden_grey = torch.where(self._hidden_pixels(), torch.nan, self.masked)
        shown = to_viewable(hidden_grey, mean, std).nan_to_num(0.5)
        return to_viewable(self.image, mean, std), shown, to_viewable(self.prediction, mean, std)

    def _hidden_pixels(self) -> Tensor:
        rows, columns = self.grid
        height, width = self.image.shape[2:]
        hidden = self.hidden.view(-1, 1, rows, columns)
        return hidden.repeat_interleave(height // rows, 2).repeat_interleave(width // columns, 3)


def to_viewable(
    pictures: Tensor, mean: Sequence[float] = (0.0,), std: Sequence[float] = (1.0,)
) -> Tensor:
    """Undo the normalisation: (B, C, H, W) float32 in [0, 1].

    Args:
        pictures: normalised images.
        mean: per channel, or one for all.
        std: per channel, or one for all.

    Raises:
        ValueError: neither one number nor one per channel.
    """
    channels = pictures.shape[1]
    for name, values in (("mean", mean), ("std", std)):
        if len(values) not in (1, channels):
            raise ValueError(f"{name} holds 1 or {channels} numbers, got {len(values)}")
    scale, shift = (torch.tensor(v, device=pictures.device).view(1, -1, 1, 1) for v in (std, mean))
    return (pictures.float() * scale + shift).clamp(0, 1)
