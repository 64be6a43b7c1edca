"""Images that fit in memory: uint8 arrays with labels (MNIST- and CIFAR-like)."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from visionlab.npz_files import read_npz


class ArrayImages(Dataset[Any]):
    """uint8 images in one array.

    Args:
        images: (N, H, W), (N, H, W, C) or (N, C, H, W) uint8; C is 1 or 3.
        labels: (N,) integers.
        transform: per-image function of a (C, H, W) uint8 tensor, or None.

    Raises:
        TypeError: images are not uint8.
        ValueError: shapes that do not fit together, or no image at all.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        *,
        transform: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        if images.dtype != np.uint8:
            raise TypeError(f"images are {images.dtype}; expected uint8 in 0..255")
        if images.ndim not in (3, 4) or len(images) == 0:
            raise ValueError(
                f"images have shape {images.shape}; expected (N, H, W), (N, H, W, C) or "
                "(N, C, H, W) with N > 0"
            )
        if labels.shape != (len(images),):
            raise ValueError(f"{len(images)} images, but labels have shape {labels.shape}")
        if not np.array_equal(labels, np.nan_to_num(labels).astype(np.int64)):
            raise ValueError(f"labels are {labels.dtype} with values that are no whole numbers")
        self.images = torch.from_numpy(np.array(_channels_first(images), order="C"))
        self.labels = torch.from_numpy(labels.astype(np.int64))
        self.transform = transform
        if transform is None:
            self.batch = self._batch  # whole batches, see KeyedLoader

    def _batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        chosen = torch.as_tensor(indices)
        return {"image": self.images[chosen], "label": self.labels[chosen]}

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        image = self.images[index]
        if self.transform is not None:
            image = self.transform(image)
        return {"image": image, "label": self.labels[index]}

    def __len__(self) -> int:
        return len(self.images)


def _channels_first(images: np.ndarray) -> np.ndarray:
    if images.ndim == 3:
        return images[:, None]
    return images.transpose(0, 3, 1, 2) if images.shape[-1] in (1, 3) else images


def array_images(
    path: str | Path,
    *,
    images: str = "images",
    labels: str = "labels",
    transform: Callable[[Tensor], Tensor] | None = None,
    limit: int | None = None,
) -> ArrayImages:
    """Images and labels from an ``.npz`` file.

    Args:
        path: the file.
        images: name of the image array within.
        labels: name of the label array within.
        transform: per-image function.
        limit: take the first so many.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is damaged or has no array of that name.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}; expected an .npz with '{images}' and '{labels}'")
    with read_npz(path) as content:
        for name in (images, labels):
            if name not in content:
                raise ValueError(f"{path.name} has no array '{name}'; it has {sorted(content)}")
        return ArrayImages(content[images][:limit], content[labels][:limit], transform=transform)
