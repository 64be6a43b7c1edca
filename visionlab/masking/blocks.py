"""Block-wise masks: rectangles of hidden (BEiT) or of visible (data2vec 2.0) patches.

Bao et al., "BEiT", ICLR 2022, Algorithm 1; Baevski et al., "Efficient self-supervised learning with
contextualized target representations" (inverse block masks), ICML 2023. Both papers add rectangles
until the count is reached; here a fixed list of rectangles is drawn for every image at once, and a
patch is ranked by the first rectangle that covers it. So the count is exact, and there is no loop
over images.
"""

import math
from typing import Any

import torch
from torch import Tensor

from visionlab.masking.base import Grid, Mask
from visionlab.masking.keys import Draws

_MOST_BLOCKS = 62  # bits of an integer, less the sign


class BlockMask(Mask):
    """Hides rectangles until the share is reached; the last one is trimmed to the exact count.

    Args:
        area: smallest and largest area of a rectangle, as shares of the grid.
        aspect: smallest ratio of sides; drawn log-uniformly in [aspect, 1 / aspect].
        blocks: rectangles drawn per image. What none of them covers is ranked at random.
    """

    def __init__(
        self,
        grid: Grid | None = None,
        *,
        ratio: float = 0.75,
        area: tuple[float, float] = (0.08, 0.3),
        aspect: float = 0.3,
        blocks: int = 32,
    ) -> None:
        smallest, largest = area
        if not 0 < smallest <= largest <= 1:
            raise ValueError(f"area holds two shares, 0 < smallest <= largest <= 1, got {area}")
        if not 0 < aspect <= 1:
            raise ValueError(
                f"aspect is the smallest ratio of the sides, inside (0, 1], got {aspect}"
            )
        if not 1 <= blocks <= _MOST_BLOCKS:
            raise ValueError(f"blocks lies in [1, {_MOST_BLOCKS}], got {blocks}")
        self.area, self.aspect, self.blocks = (smallest, largest), aspect, blocks
        super().__init__(grid, ratio=ratio)

    def scores(self, draws: Draws, images: Tensor | None = None) -> Tensor:
        """Scores of all patches; see `Mask.scores`."""
        return self._cover_time(draws)

    def _cover_time(self, draws: Draws) -> Tensor:
        """Number of the first rectangle over each patch, plus a rank inside [0, 1), (B, L)."""
        height, width = self.bound_grid
        size = draw_block_size(draws, self.blocks, self.bound_grid, self.area, self.aspect)
        corner = draw_corner(draws, size, self.bound_grid)
        rows, columns = _distance(corner, size, (height, width))  # (B, blocks, H), (B, blocks, W)
        # one bit per rectangle: which of them span a row, a column, and so a patch
        cover = (_bits(rows < 1)[:, :, None] & _bits(columns < 1)[:, None, :]).flatten(1)
        lowest = cover & -cover
        covered = cover != 0
        first = torch.where(covered, lowest, 1).double().log2().to(torch.int64)  # (B, L)
        place = torch.arange(height * width, device=draws.device).expand_as(first)
        image = torch.arange(draws.batch_size, device=draws.device)[:, None]
        distance = torch.maximum(
            rows[image, first, place // width], columns[image, first, place % width]
        )
        # inside one rectangle the middle comes first: a trimmed one stays compact
        chance = draws.uniform(height * width).double()
        time = first + distance * (1 - 1e-6) + 1e-6 * chance
        return torch.where(covered, time, self.blocks + chance)

    def _parameters(self) -> dict[str, Any]:
        return {"area": list(self.area), "aspect": self.aspect, "blocks": self.blocks}


class InverseBlockMask(BlockMask):
    """Keeps rectangles visible and hides the rest; arguments as in :class:`BlockMask`."""

    def scores(self, draws: Draws, images: Tensor | None = None) -> Tensor:
        """Scores of all patches; see `Mask.scores`."""
        return -self._cover_time(draws)


def draw_block_size(
    draws: Draws, count: int, grid: Grid, area: tuple[float, float], aspect: float
) -> Tensor:
    """Heights and widths of ``count`` rectangles per row, (B, count, 2) int64, within the grid."""
    height, width = grid
    share = area[0] + (area[1] - area[0]) * draws.uniform(count)
    ratio = torch.exp(math.log(aspect) * (2 * draws.uniform(count) - 1))
    patches = share * (height * width)
    rows = torch.sqrt(patches * ratio).round().clamp(1, height)
    columns = (patches / rows).round().clamp(1, width)
    return torch.stack([rows, columns], -1).to(torch.int64)


def draw_corner(draws: Draws, size: Tensor, grid: Grid) -> Tensor:
    """Upper left corners, uniform over the places where the rectangles fit, (B, count, 2) int64."""
    room = torch.tensor(grid, device=size.device) - size + 1
    count = size.shape[1]
    place = draws.uniform(2 * count).view(-1, count, 2)
    return (place * room).floor().to(torch.int64).minimum(room - 1)


def _bits(inside: Tensor) -> Tensor:
    """(B, n, length) bool -> (B, length) int64 with bit k from inside[:, k]."""
    weight = 1 << torch.arange(inside.shape[1], device=inside.device)
    return (inside * weight[:, None]).sum(1)


def _distance(corner: Tensor, size: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """Distance from the rectangle's centre in half sides: < 1 inside. (B, n, H) and (B, n, W)."""
    axes = []
    for axis, length in enumerate(grid):
        place = torch.arange(length, device=corner.device) + 0.5
        half = size[..., axis, None].double() / 2
        axes.append((place - corner[..., axis, None] - half).abs() / half)
    return axes[0], axes[1]
