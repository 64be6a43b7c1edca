"""Data that hold a run at a step, so that what a test does to it meets it running."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from visionlab.data.arrays import ArrayImages


class HeldImages(ArrayImages):
    """The images and labels of an .npz archive.

    Args:
        path: the archive.
        hold: while this file exists, no more than ``batches`` batches are given out.
        batches: their number.
    """

    def __init__(self, path: str, *, hold: str, batches: int) -> None:
        with np.load(path) as file:
            super().__init__(file["images"], file["labels"])
        self.hold, self.left = Path(hold), batches
        self.batch = self._held_batch

    def _held_batch(self, indices: Sequence[int]) -> dict[str, Any]:
        while self.left <= 0 and self.hold.exists():
            time.sleep(0.02)
        self.left -= 1
        return self._batch(indices)


def held(path: Path, hold: Path, batches: int) -> dict[str, Any]:
    """The dataset as a config names it; its run needs ``--trust-code``."""
    return {
        "_target_": "tests.held.HeldImages",
        "path": str(path),
        "hold": str(hold),
        "batches": batches,
    }
