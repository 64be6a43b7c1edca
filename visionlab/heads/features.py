"""The two things that pass between a backbone, its heads and the task that trains them."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Features:
    """What a plain ViT hands to a head.

    Attributes:
        tokens: (B, P + h*w, D), after the last norm; the first P are class and register tokens.
        grid: (h, w) patches.
        image_size: (H, W) px of the batch, padding included.
        sizes: (B, 2) int64, height and width of each picture without its padding (bottom right).
        block_maps: (B, D, h, w) outputs of the blocks that a head asks for by its ``blocks``,
            before the last norm.
    """

    tokens: Tensor
    grid: tuple[int, int]
    image_size: tuple[int, int]
    sizes: Tensor
    block_maps: tuple[Tensor, ...] = ()

    @property
    def prefix(self) -> int:
        """Number of tokens that are not patches."""
        return self.tokens.shape[1] - self.grid[0] * self.grid[1]

    @property
    def map(self) -> Tensor:
        """(B, D, h, w): the patch tokens as one feature map."""
        patches = self.tokens[:, self.prefix :]
        return patches.transpose(1, 2).unflatten(2, self.grid)

    @property
    def valid(self) -> Tensor:
        """(B, h, w) bool: patches whose top left corner lies inside the picture."""
        return valid_patches(self.sizes, self.grid, self.image_size)


def valid_patches(sizes: Tensor, grid: tuple[int, int], image_size: tuple[int, int]) -> Tensor:
    """(B, h, w) bool: patches whose top left corner lies inside the picture of ``sizes`` (B, 2)."""
    axes = [
        torch.arange(n, device=sizes.device) * (extent / n) for n, extent in zip(grid, image_size)
    ]
    rows, columns = (axis[None] < sizes[:, i, None] for i, axis in enumerate(axes))
    return rows[:, :, None] & columns[:, None, :]


@dataclass(frozen=True)
class LossSum:
    """A loss as a sum and the number of things it sums over, so that ranks can share one mean.

    Attributes:
        total: scalar with gradient.
        count: scalar, images, pixels or positive anchors; zero is allowed (mean of nothing is 0).
        parts: detached sums of the terms of ``total``, for the log.
    """

    total: Tensor
    count: Tensor
    parts: dict[str, Tensor] = field(default_factory=dict)

    @property
    def mean(self) -> Tensor:
        """``total / max(count, 1)``."""
        return self.total / self.count.clamp(min=1)


def check_dim(head: nn.Module, dim: int, features: Features) -> None:
    """Raise when the backbone's width is not the one that the head was built for."""
    if features.tokens.shape[-1] != dim:
        raise ValueError(
            f"{type(head).__name__} was built for features of width {dim}, the backbone gives "
            f"{features.tokens.shape[-1]}; set the head's 'dim' to the backbone's width"
        )


def check_classes(num_classes: int) -> int:
    """``num_classes`` if it is a positive number."""
    if num_classes < 1:
        raise ValueError(f"a head needs num_classes >= 1, got {num_classes}")
    return num_classes
