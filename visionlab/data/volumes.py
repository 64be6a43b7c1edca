"""Crops of the slices of one CT volume in Hounsfield units, from a local ``.npz`` file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import Dataset

from visionlab.data.randomness import mix
from visionlab.npz_files import read_npz

# contiguous shares of z: neighbouring slices are alike, so a random split would leak
_SPLITS = {"train": (0.0, 0.7), "val": (0.75, 0.85), "test": (0.9, 1.0)}


class VolumeSlices(Dataset[Any]):
    """Axial slices, windowed to [0, 1] float32; random crops for training, whole for testing.

    Args:
        path: ``.npz`` with a volume (z, y, x) in Hounsfield units.
        split: a contiguous block of z, with slices left out between the blocks.
        array: its name in the file.
        window: lowest and highest Hounsfield unit; they become 0 and 1, what lies beyond is cut.
        size: side of a crop; whole slices if None.
        length: crops per epoch; every slice once if None.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no such array or split, or crops larger than the slices.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        split: Literal["train", "val", "test"] = "train",
        array: str = "hu",
        window: Sequence[float] = (-1000.0, 1500.0),
        size: int | None = None,
        length: int | None = None,
    ) -> None:
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"no file {path}; expected an .npz with a CT volume '{array}'")
        if split not in _SPLITS:
            raise ValueError(f"split is 'train', 'val' or 'test', got {split!r}")
        with read_npz(path) as content:
            if array not in content:
                raise ValueError(f"{path.name} has no array '{array}'; it has {sorted(content)}")
            volume = content[array]
        first, last = (round(share * len(volume)) for share in _SPLITS[split])
        low, high = window
        scaled = (volume[first:last].astype(np.float32) - low) / (high - low)
        self.slices = torch.from_numpy(scaled).clamp_(0, 1)
        if size is not None and size > min(self.slices.shape[1:]):
            raise ValueError(
                f"crops of {size} do not fit slices of {tuple(self.slices.shape[1:])} pixels"
            )
        self.size, self.train = size, split == "train"
        self.length = length or len(self.slices)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        """``image``: (1, H, W) float32 in [0, 1]. Training draws from torch's keyed generator."""
        if not 0 <= index < self.length:
            raise IndexError(index)
        if self.size is None:
            return {"image": self.slices[index % len(self.slices)][None]}
        generator = None if self.train else torch.Generator().manual_seed(mix(index, 0xC7))
        z, top, left = (
            int(torch.randint(n, (), generator=generator))
            for n in (len(self.slices), *(n - self.size + 1 for n in self.slices.shape[1:]))
        )
        crop = self.slices[z, top : top + self.size, left : left + self.size]
        if self.train and int(torch.randint(2, ())):
            crop = crop.flip(1)
        return {"image": crop[None].contiguous()}
