"""The one interface of all mask strategies, and the rule for the number of visible patches."""

import copy
import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from visionlab.masking.keys import Draws, GeneratorDraws, IndexedDraws
from visionlab.masking.mask_batch import MaskBatch

Grid = tuple[int, int]


def check_ratio(ratio: float) -> float:
    """A mask ratio is a number inside (0, 1).

    Raises:
        TypeError, ValueError: it is not.
    """
    if isinstance(ratio, bool) or not isinstance(ratio, int | float):
        raise TypeError(f"the mask ratio is a number in (0, 1), got {ratio!r}")
    if not 0 < ratio < 1:
        raise ValueError(f"the mask ratio is the hidden share, inside (0, 1), got {ratio}")
    return float(ratio)


def keep_count(patches: int, ratio: float) -> int:
    """Visible patches: ``patches - floor(patches * ratio + 1/2)``.

    Equals MAE's ``int(L * (1 - ratio))`` wherever ``L * (1 - ratio)`` is an integer; elsewhere it
    rounds to the nearest where MAE truncates (also float error: L = 100 at .9 keeps 10, MAE's
    formula 9).

    Raises:
        ValueError: the ratio leaves no patch visible or none hidden.
    """
    keep = patches - math.floor(patches * ratio + 0.5)
    if not 0 < keep < patches:
        what = "visible" if keep <= 0 else "hidden"
        raise ValueError(
            f"mask ratio {ratio} leaves no patch {what} of {patches}; "
            f"use a {'smaller' if keep <= 0 else 'larger'} ratio or a larger grid"
        )
    return keep


def _check_grid(grid: Sequence[int]) -> Grid:
    """A grid is (rows, columns) of patches.

    Raises:
        TypeError, ValueError: not two positive integers.
    """
    try:
        height, width = (operator.index(side) for side in grid)
    except (TypeError, ValueError):
        raise TypeError(
            f"a grid is (rows, columns) of patches, such as (14, 14), got {grid!r}"
        ) from None
    if height < 1 or width < 1:
        raise ValueError(f"a grid has at least one row and one column, got {(height, width)}")
    return height, width


class Mask(ABC):
    """Draws masks over a grid of patches; a draw is a pure function of its key.

    Args:
        grid: (rows, columns) of patches; None is filled in by :class:`MaskedAutoencoder`.
        ratio: hidden share of the patches; :func:`keep_count` gives the exact visible number.
    """

    needs_images = False

    def __init__(self, grid: Grid | None = None, *, ratio: float = 0.75) -> None:
        self.grid: Grid | None = None
        self.ratio = check_ratio(ratio)
        if grid is not None:
            self._bind(_check_grid(grid))

    def _bind(self, grid: Grid) -> None:
        """Take a checked grid; strategies add their own checks here."""
        self.grid = grid
        self.keep = keep_count(grid[0] * grid[1], self.ratio)

    def with_grid(self, grid: Sequence[int]) -> Self:
        """The same strategy over another grid."""
        grid = _check_grid(grid)
        if grid == self.grid:
            return self
        other = copy.copy(self)
        other._bind(grid)
        return other

    def with_ratio(self, ratio: float) -> Self:
        """The same strategy at another ratio."""
        other = copy.copy(self)
        other.ratio = check_ratio(ratio)
        if self.grid is not None:
            other._bind(self.grid)
        return other

    def at(self, epoch: float | None) -> "Mask":
        """The mask of an epoch: itself, unless the strategy is a schedule."""
        return self

    def __call__(
        self,
        batch_size: int,
        device: str | torch.device = "cpu",
        *,
        key: int | Iterable[int],
        index: Tensor | Sequence[int] | None = None,
        images: Tensor | None = None,
        epoch: float | None = None,
    ) -> MaskBatch:
        """Draw the masks of one batch.

        Args:
            batch_size: number of masks.
            device: where they are drawn; CPU and CUDA streams differ without ``index``.
            key: integers. (seed, rank, step), or (seed, epoch) together with ``index``.
            index: (B,) sample numbers: each mask then depends on (key, its number) alone, whatever
                the split of the batch, the number of ranks or the device.
            images: (B, C, H, W), read by input-dependent strategies only.
            epoch: read by schedules only.
        """
        draws = _draws(batch_size, torch.device(device), key, index)
        return self.at(epoch)._draw(draws, images)

    def _draw(self, draws: Draws, images: Tensor | None) -> MaskBatch:
        grid = self.bound_grid
        return MaskBatch.from_scores(self.scores(draws, images), self.keep, grid)

    @property
    def bound_grid(self) -> Grid:
        """The grid, or the sentence that it is missing."""
        if self.grid is None:
            raise ValueError(
                f"this {type(self).__name__} has no grid yet; pass grid=(rows, columns) or call "
                "with_grid"
            )
        return self.grid

    @abstractmethod
    def scores(self, draws: Draws, images: Tensor | None = None) -> Tensor:
        """(B, L) scores; the largest stay visible."""

    def describe(self) -> dict[str, Any]:
        """Plain data for the run record: strategy, grid, ratio and all parameters."""
        return {
            "strategy": type(self).__name__,
            "grid": list(self.bound_grid),
            "ratio": self.ratio,
            "keep": self.keep,
            **self._parameters(),
        }

    def _parameters(self) -> dict[str, Any]:
        return {}


def _draws(
    batch_size: int,
    device: torch.device,
    key: int | Iterable[int],
    index: Tensor | Sequence[int] | None,
) -> Draws:
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 0:
        raise ValueError(f"the batch size is a number of masks >= 0, got {batch_size!r}")
    if index is None:
        return GeneratorDraws(key, batch_size, device)
    index = torch.as_tensor(index, device=device)
    if index.is_floating_point() or index.dtype == torch.bool or index.shape != (batch_size,):
        raise ValueError(
            f"index holds one integer per mask, shape ({batch_size},), "
            f"got {index.dtype} of shape {tuple(index.shape)}"
        )
    return IndexedDraws(key, index)
