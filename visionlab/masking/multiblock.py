"""I-JEPA's multi-block masks: several target blocks and one context.

Assran et al., "Self-supervised learning from images with a joint-embedding predictive
architecture", CVPR 2023, section 3.
"""

import math
from typing import Any

import torch
from torch import Tensor

from visionlab.masking.base import Grid, Mask
from visionlab.masking.blocks import draw_corner
from visionlab.masking.keys import Draws
from visionlab.masking.mask_batch import MaskBatch


class MultiBlockMask(Mask):
    """Targets are blocks of one size per batch; the context is a larger block without them.

    ``ids_keep`` is the context, ``targets`` (B, num_targets, patches) the blocks. The context
    never meets a target and has exactly the number of patches that the ratio says: a random part
    of the context block, filled from outside of it where the block is too small. To make that
    possible for every draw the targets together cover at most the hidden share, so a target's area
    is limited to ratio / num_targets.

    With ``index`` the size of the target blocks is a function of the key alone (one size per
    epoch).

    Args:
        num_targets: target blocks per image.
        target_scale: smallest and largest area of a target, as shares of the grid.
        target_aspect: smallest and largest height / width of a target.
        context_scale: smallest and largest area of the context block.
    """

    def __init__(
        self,
        grid: Grid | None = None,
        *,
        ratio: float = 0.75,
        num_targets: int = 4,
        target_scale: tuple[float, float] = (0.15, 0.2),
        target_aspect: tuple[float, float] = (0.75, 1.5),
        context_scale: tuple[float, float] = (0.85, 1.0),
    ) -> None:
        for name, (low, high) in (("target_scale", target_scale), ("context_scale", context_scale)):
            if not 0 < low <= high <= 1:
                raise ValueError(
                    f"{name} holds two shares, 0 < low <= high <= 1, got {(low, high)}"
                )
        if not 0 < target_aspect[0] <= target_aspect[1]:
            raise ValueError(f"target_aspect holds 0 < low <= high, got {target_aspect}")
        if num_targets < 1:
            raise ValueError(f"at least one target block is needed, got num_targets={num_targets}")
        self.num_targets = num_targets
        self.target_scale, self.target_aspect = target_scale, target_aspect
        self.context_scale = context_scale
        super().__init__(grid, ratio=ratio)

    def _bind(self, grid: Grid) -> None:
        super()._bind(grid)
        self._largest = (grid[0] * grid[1] - self.keep) // self.num_targets
        if self._largest < 1:
            raise ValueError(
                f"{self.num_targets} targets do not fit into the {grid[0] * grid[1] - self.keep} "
                "hidden patches "
                f"of a {grid[0]}x{grid[1]} grid; use fewer targets or a larger ratio"
            )

    def _draw(self, draws: Draws, images: Tensor | None) -> MaskBatch:
        targets = self._targets(draws)
        scores = self.scores(draws)
        covered = torch.zeros_like(scores, dtype=torch.bool).scatter_(1, targets.flatten(1), True)
        batch = MaskBatch.from_scores(scores.masked_fill(covered, -1), self.keep, self.bound_grid)
        return MaskBatch(batch.hidden, self.keep, batch.grid, targets)

    def scores(self, draws: Draws, images: Tensor | None = None) -> Tensor:
        """Random order of the context block (scores in [1, 2)) before the rest (in [0, 1))."""
        height, width = self.bound_grid
        low, high = self.context_scale
        side = torch.sqrt(low + (high - low) * draws.uniform(1))
        size = torch.stack([(side * height).round(), (side * width).round()], -1)
        size = size.to(torch.int64).clamp_(min=1)
        corner = draw_corner(draws, size, (height, width))
        rows, columns = (
            _within(corner[..., a], size[..., a], n) for a, n in enumerate((height, width))
        )
        block = (rows[:, :, None] & columns[:, None, :]).flatten(1)
        return draws.uniform(height * width) + block

    def _targets(self, draws: Draws) -> Tensor:
        """Patches of the target blocks, (B, num_targets, size) int64."""
        height, width = self.bound_grid
        rows, columns = self._target_size(draws)
        size = torch.tensor([rows, columns], device=draws.device).expand(
            draws.batch_size, self.num_targets, 2
        )
        corner = draw_corner(draws, size, (height, width))
        y = corner[..., 0, None, None] + torch.arange(rows, device=draws.device)[:, None]
        x = corner[..., 1, None, None] + torch.arange(columns, device=draws.device)
        return (y * width + x).flatten(2)

    def _target_size(self, draws: Draws) -> tuple[int, int]:
        """One (rows, columns) for the batch, with at most the allowed number of patches."""
        height, width = self.bound_grid
        low, high = self.target_scale
        patches = (low + (high - low) * draws.shared()) * height * width
        low, high = self.target_aspect
        aspect = low + (high - low) * draws.shared()
        patches = min(patches, self._largest)
        rows = min(max(round(math.sqrt(patches * aspect)), 1), height, self._largest)
        columns = min(max(round(patches / rows), 1), width, self._largest // rows)
        return rows, columns

    def _parameters(self) -> dict[str, Any]:
        return {
            "num_targets": self.num_targets,
            "target_scale": list(self.target_scale),
            "target_aspect": list(self.target_aspect),
            "context_scale": list(self.context_scale),
        }


def _within(start: Tensor, length: Tensor, size: int) -> Tensor:
    """(B, 1) starts and lengths -> (B, size) bool."""
    place = torch.arange(size, device=start.device)
    return (place >= start) & (place < start + length)
