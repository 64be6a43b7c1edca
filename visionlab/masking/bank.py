"""Masks from a stored bank of noise, the ``.npz`` format that ColorMAE publishes.

A bank is one array (n, M, N): n square or oblong noise pictures. Every mask takes its own picture,
window and flips. The generated colours need no file and are independent over steps; a bank is for
compatibility.
"""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from visionlab.masking.base import Grid, Mask
from visionlab.masking.keys import Draws
from visionlab.npz_files import read_npz


class BankMask(Mask):
    """Random windows of a noise bank.

    Args:
        path: ``.npz`` (its first array) or ``.npy`` file of shape (n, M, N), float32, float64 or
            integer.
        keep: which values stay visible. The published code keeps the largest.
    """

    def __init__(
        self,
        grid: Grid | None = None,
        *,
        path: str | Path,
        ratio: float = 0.75,
        keep: Literal["largest", "smallest"] = "largest",
    ) -> None:
        if keep not in ("largest", "smallest"):
            raise ValueError(f"keep is 'largest' or 'smallest', got {keep!r}")
        self.path, self.sign = Path(path), 1 if keep == "largest" else -1
        self.bank = load_bank(path)
        self._on_device: dict[torch.device, Tensor] = {}
        super().__init__(grid, ratio=ratio)

    def _bind(self, grid: Grid) -> None:
        super()._bind(grid)
        rows, columns = self.bank.shape[1:]
        if grid[0] > rows or grid[1] > columns:
            raise ValueError(
                f"a bank of {rows}x{columns} pictures is too small for a grid of "
                f"{grid[0]}x{grid[1]}"
            )

    def scores(self, draws: Draws, images: Tensor | None = None) -> Tensor:
        """Scores of all patches; see `Mask.scores`."""
        place = self.windows(draws)
        window = crop(self._bank(draws.device), *place.unbind(1), grid=self.bound_grid)
        if not window.is_floating_point():  # few levels: draw the order of equal values
            window = window.double() + draws.uniform(window[0].numel()).view(window.shape)
        return self.sign * window.flatten(1)

    def windows(self, draws: Draws) -> Tensor:
        """Picture, row, column, vertical and horizontal flip of each mask, (B, 5) int64."""
        n, rows, columns = self.bank.shape
        height, width = self.bound_grid
        choices = torch.tensor(
            [n, rows - height + 1, columns - width + 1, 2, 2], device=draws.device
        )
        return (draws.uniform(5) * choices).floor().to(torch.int64).minimum(choices - 1)

    def _bank(self, device: torch.device) -> Tensor:
        if device not in self._on_device:
            self._on_device[device] = self.bank.to(device)
        return self._on_device[device]

    def _parameters(self) -> dict[str, Any]:
        keep = "largest" if self.sign > 0 else "smallest"
        return {"path": self.path.name, "values": keep, "bank": list(self.bank.shape)}


def crop(
    bank: Tensor,
    picture: Tensor,
    row: Tensor,
    column: Tensor,
    flip_rows: Tensor,
    flip_columns: Tensor,
    *,
    grid: Grid,
) -> Tensor:
    """Windows of the bank, (B, H, W), flipped where asked."""
    y = _steps(grid[0], flip_rows) + row[:, None]
    x = _steps(grid[1], flip_columns) + column[:, None]
    return bank[picture[:, None, None], y[:, :, None], x[:, None, :]]


def _steps(length: int, flip: Tensor) -> Tensor:
    steps = torch.arange(length, device=flip.device)
    return torch.where(flip[:, None] == 1, length - 1 - steps, steps)


def load_bank(path: str | Path) -> Tensor:
    """The noise array of a ``.npz`` or ``.npy`` file, (n, M, N).

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a NumPy file, or of another shape.
        TypeError: half precision or no numbers.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"no noise bank at '{path}'; download one (ColorMAE README) or use a generated colour: "
            "create_mask('green', ...)"
        )
    bank = _read(path)
    if bank.ndim != 3 or 0 in bank.shape:
        raise ValueError(f"a noise bank has shape (n, M, N), got {bank.shape} in '{path}'")
    if bank.dtype == np.float16 or bank.dtype.kind not in "fiu":
        raise TypeError(
            f"a noise bank holds float32, float64 or integers, got {bank.dtype} in '{path}': half "
            "precision has so many ties that the place of a patch would decide; generate it again "
            "in float32"
        )
    if bank.dtype.kind == "f" and not np.isfinite(bank).all():
        raise ValueError(f"the noise bank '{path}' holds NaN or infinity")
    return torch.from_numpy(bank.astype(np.int64) if bank.dtype.kind == "u" else bank)


def _read(path: Path) -> np.ndarray:
    """The one array of a ``.npy``, the first of a ``.npz``."""
    try:
        with path.open("rb") as file:
            if file.read(2) != b"PK":
                file.seek(0)
                return np.lib.format.read_array(file, allow_pickle=False)
        with read_npz(path) as arrays:
            return next(iter(arrays.values()))
    except (ValueError, EOFError, StopIteration) as error:
        raise ValueError(f"'{path}' is no readable .npz or .npy file: {error}") from error
