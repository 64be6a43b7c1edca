"""Labelled JPEG archives: one ``.npz`` with all pictures as bytes, for small sets and excerpts.

Keys: ``jpeg`` uint8 and ``offset`` (n + 1,), then ``label`` (n,), or ``boxes`` (rows image, class,
x1, y1, x2, y2 px), or ``mask`` (n, H, W); optional ``classes``.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from visionlab.data.arrays import ArrayImages
from visionlab.data.samples import (
    KINDS,
    check_label,
    check_limit,
    class_names,
    decode,
    detection_sample,
    half_open,
    label_map,
    need_file,
    need_samples,
    segmentation_sample,
)
from visionlab.data.segmentation import remap_table
from visionlab.npz_files import read_npz
from visionlab.registry import suggest

_KEY = {"classification": "label", "detection": "boxes", "segmentation": "mask"}


class PackedArchive(Dataset):
    """Read a labelled JPEG archive.

    Args:
        path: the ``.npz``.
        kind: which labels to return.
        classes: names, or how many; the archive's own if None.
        one_based: boxes count pixels from 1 and include the last one (VOC).
        ignore: stored mask values that are ignored, besides 255.
        limit: keep the first so many images; all if None.
        every: keep each so-manieth image (of files that are sorted by class).
        first: position of the first image that is kept.
        one_class: give every box the one class "object" (proposals; sets too small for their
            classes).
    """

    def __init__(
        self,
        path: str,
        kind: Literal["classification", "detection", "segmentation"],
        *,
        classes: Sequence[str] | int | None = None,
        one_based: bool = False,
        ignore: Sequence[int] = (),
        limit: int | None = None,
        every: int = 1,
        first: int = 0,
        one_class: bool = False,
    ) -> None:
        if kind not in KINDS:
            raise ValueError(f"no kind '{kind}'. {suggest(kind, KINDS)}")
        self.kind, self._path, self._one_based = kind, need_file(path, "image archive"), one_based
        # an open npz unpacks a whole array at each access: read it once
        with read_npz(self._path) as archive:
            self._data = {k: archive[k] for k in archive if not k.startswith("poly_")}
        missing = [k for k in ("jpeg", "offset", _KEY[kind]) if k not in self._data]
        if missing:
            raise ValueError(f"{path} holds no {', '.join(missing)}; it has {sorted(self._data)}")
        if classes is None and "classes" not in self._data:
            raise ValueError(f"{path} names no classes; give 'classes'")
        self.classes = (
            [str(c) for c in self._data["classes"]] if classes is None else class_names(classes)
        )
        self._stored = self.classes
        if one_class:
            self.classes = ["object"]
        self._check_rows()
        self._remap = remap_table(zero_is_ignored=False, ignore=ignore)
        if every < 1 or first < 0:
            raise ValueError(f"every is {every} and first {first}; expected at least 1 and 0")
        self._rows = range(len(self._data["offset"]) - 1)[first::every][: check_limit(limit)]
        need_samples(len(self._rows), path)

    def _check_rows(self) -> None:
        count, labels = len(self._data["offset"]) - 1, self._data[_KEY[self.kind]]
        if self.kind == "detection":
            fits = labels.ndim == 2 and labels.shape[1] == 6
            fits = fits and bool(np.isin(labels[:, 0], np.arange(count)).all())
            wanted = f"(n, 6) with images 0 to {count - 1} in the first column"
        else:
            whole = np.issubdtype(labels.dtype, np.integer)
            fits, wanted = whole and len(labels) == count, f"whole numbers, one for each of {count}"
        if not fits:
            raise ValueError(
                f"'{_KEY[self.kind]}' of {self._path} is {labels.dtype} of shape {labels.shape}; "
                f"expected {wanted}"
            )

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(f"no sample {index} in {self._path}, it holds {len(self)}")
        index = self._rows[index]
        start, stop = self._data["offset"][index : index + 2]
        source = f"{self._path.name}[{index}]"
        image = decode(self._data["jpeg"][start:stop].tobytes(), source)
        if self.kind == "classification":
            label = check_label(int(self._data["label"][index]), self.classes, source)
            return {"image": image, "label": label}
        if self.kind == "segmentation":
            mask = label_map(self._data["mask"][index], source)
            return segmentation_sample(
                image, self._remap[mask], classes=self.classes, source=source
            )
        rows = self._data["boxes"]
        rows = rows[rows[:, 0] == index]
        boxes = half_open(rows[:, 2:]) if self._one_based else rows[:, 2:]
        sample = detection_sample(image, boxes, rows[:, 1], classes=self._stored, source=source)
        if self.classes is not self._stored:
            sample["labels"] = torch.zeros_like(sample["labels"])
        return sample


def packed_images(
    path: str,
    *,
    transform: Callable[[Tensor], Tensor] | None = None,
    limit: int | None = None,
    every: int = 1,
    first: int = 0,
) -> ArrayImages:
    """A classification archive of images of one size, decoded once into memory.

    For small images, where decoding anew in each epoch would cost more than training.

    Args:
        path: the ``.npz``, see `PackedArchive`.
        transform: per-image function of a (3, H, W) uint8 tensor, or None.
        limit: keep the first so many images; all if None.
        every: keep each so-manieth image.
        first: position of the first image that is kept.

    Raises:
        ValueError: the images have several sizes.
    """
    archive = PackedArchive(path, "classification", limit=limit, every=every, first=first)
    samples = [archive[i] for i in range(len(archive))]
    sizes = {tuple(s["image"].shape) for s in samples}
    if len(sizes) > 1:
        raise ValueError(
            f"{path} holds images of {len(sizes)} sizes; 'packed_images' needs one, read it with "
            "'packed_archive' and a transform"
        )
    return ArrayImages(
        np.stack([s["image"].numpy() for s in samples]),
        np.array([s["label"] for s in samples]),
        transform=transform,
    )
