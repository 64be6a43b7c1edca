"""Regular masks: grid-wise sampling and masks of coarse units.

He et al., CVPR 2022, Fig. 6; Ryali et al., "Hiera", ICML 2023, section 3.
"""

from typing import Any, Literal

import torch
from torch import Tensor

from visionlab.masking.base import Grid, Mask
from visionlab.masking.keys import Draws


class GridMask(Mask):
    """Keeps patches on a regular lattice with a random offset.

    At ratio .75 one patch in each 2 x 2 cell stays visible, as in MAE's grid-wise sampling. Any
    other ratio follows the order of Bayer's dither matrix, which fills a grid as evenly as it can.
    """

    def scores(self, draws: Draws, images: Tensor | None = None) -> Tensor:
        """Scores of all patches; see `Mask.scores`."""
        height, width = self.bound_grid
        table = bayer(max(height, width), draws.device)
        side = len(table)
        offset = (draws.uniform(2) * side).floor().to(torch.int64).clamp_(max=side - 1)
        rows = (torch.arange(height, device=draws.device) + offset[:, :1]) % side
        columns = (torch.arange(width, device=draws.device) + offset[:, 1:]) % side
        return -table[rows[:, :, None], columns[:, None, :]].flatten(1)


def bayer(size: int, device: torch.device | str = "cpu") -> Tensor:
    """Bayer's matrix of the next power of two >= size, ranks 0 ... n^2 - 1, (n, n) float64."""
    table = torch.zeros(1, 1, dtype=torch.float64, device=device)
    step = torch.tensor([[0, 2], [3, 1]], dtype=torch.float64, device=device)
    while len(table) < size:
        # each cell of the finer matrix repeats the coarse one, whose ranks weigh most
        table = 4 * table.repeat(2, 2) + step.repeat_interleave(len(table), 0).repeat_interleave(
            len(table), 1
        )
    return table


class UnitMask(Mask):
    """Hides whole units of several patches, as a multi-stage encoder needs.

    Where the number of visible patches is no multiple of a unit, one unit is cut to keep the count
    exact.

    Args:
        unit: (rows, columns) of patches in a unit; units at the border may be cut by the grid.
        base: strategy that draws the units, a mask without grid (default: random).
    """

    def __init__(
        self,
        grid: Grid | None = None,
        *,
        ratio: float = 0.75,
        unit: tuple[int, int] = (2, 2),
        base: Mask | Literal["random"] = "random",
    ) -> None:
        if len(unit) != 2 or min(unit) < 1:
            raise ValueError(f"a unit is (rows, columns) of patches, at least (1, 1), got {unit}")
        if base == "random":
            from visionlab.masking.random import RandomMask

            base = RandomMask(ratio=ratio)
        if not isinstance(base, Mask):
            raise TypeError(f"base is a mask strategy such as create_mask('green'), got {base!r}")
        self.unit, self.base = (int(unit[0]), int(unit[1])), base
        self.needs_images = base.needs_images
        super().__init__(grid, ratio=ratio)

    def _bind(self, grid: Grid) -> None:
        super()._bind(grid)
        coarse = (-(-grid[0] // self.unit[0]), -(-grid[1] // self.unit[1]))
        if coarse == (1, 1):
            raise ValueError(
                f"a unit of {self.unit} covers the whole grid {grid}; use a smaller unit"
            )
        self._coarse = self.base.with_ratio(0.5).with_grid(coarse)  # only its scores are used

    def scores(self, draws: Draws, images: Tensor | None = None) -> Tensor:
        """Scores of all patches; see `Mask.scores`."""
        height, width = self.bound_grid
        coarse = self._coarse.scores(draws, images)
        rank = coarse.argsort(1).argsort(1).view(-1, *self._coarse.bound_grid)
        fine = rank.repeat_interleave(self.unit[0], 1).repeat_interleave(self.unit[1], 2)
        # the fraction decides inside the one unit that is cut
        return fine[:, :height, :width].flatten(1) + draws.uniform(height * width).double() * 0.999

    def _parameters(self) -> dict[str, Any]:
        return {"unit": list(self.unit), "base": self._coarse.describe()}
