"""Semantic segmentation folders (ADE20K, CamVid, Cityscapes style): one picture, one label PNG."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torchvision.datasets import VisionDataset

from visionlab.data.decoding import UNREADABLE
from visionlab.data.samples import (
    IGNORE,
    check_limit,
    class_names,
    need_folder,
    need_samples,
    read_image,
    segmentation_sample,
)

_PICTURES = (".jpg", ".jpeg", ".png")


class SegmentationFolder(VisionDataset):
    """Pictures and label maps with the same file stem.

    ADE20K (``images/training``, ``annotations/training``) counts classes from 1 and writes 0 for
    "none of them": ``zero_is_ignored=True``. CamVid writes its void class as 11: ``ignore=[11]``.

    Args:
        images: folder with the pictures.
        masks: folder with the label maps (PNG, gray or palette).
        classes: class names, or how many there are.
        zero_is_ignored: labels count from 1; 0 is ignored.
        ignore: stored values that are ignored, besides 255.
        limit: keep the first so many; all if None.
    """

    kind = "segmentation"

    def __init__(
        self,
        images: str,
        masks: str,
        *,
        classes: Sequence[str] | int,
        zero_is_ignored: bool = False,
        ignore: Sequence[int] = (),
        limit: int | None = None,
    ) -> None:
        super().__init__(need_folder(images, "images"))
        folder = need_folder(masks, "label maps")
        self.classes = class_names(classes)
        pictures = sorted(p for p in Path(images).iterdir() if p.suffix.lower() in _PICTURES)
        need_samples(len(pictures), images)
        missing = [p.name for p in pictures if not (folder / f"{p.stem}.png").is_file()]
        if missing:
            raise FileNotFoundError(
                f"{len(missing)} pictures of {images} have no label map in {masks}, first "
                f"'{missing[0]}'; give the folders of one split"
            )
        self._pairs = [(p, folder / f"{p.stem}.png") for p in pictures][: check_limit(limit)]
        self._remap = remap_table(zero_is_ignored=zero_is_ignored, ignore=ignore)

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> dict[str, Any]:
        picture, label_map = self._pairs[index]
        stored = _stored(label_map)
        if stored.ndim != 2 or stored.max(initial=0) > 255:
            raise ValueError(
                f"{label_map.name} has the shape {stored.shape} and values up to "
                f"{stored.max(initial=0)}; a label map is a gray or palette PNG of 8 bit"
            )
        return segmentation_sample(
            read_image(picture),
            self._remap[stored.astype(np.uint8)],
            classes=self.classes,
            source=label_map.name,
        )


def _stored(label_map: Path) -> np.ndarray:
    try:
        with Image.open(label_map) as file:
            return np.asarray(file)
    except UNREADABLE as error:
        raise ValueError(f"{label_map} is no readable label map ({error}); replace it") from error


def remap_table(*, zero_is_ignored: bool, ignore: Sequence[int]) -> np.ndarray:
    """(256,) uint8: stored value -> class, or 255."""
    if wrong := [v for v in ignore if v not in range(256)]:
        raise ValueError(f"ignore names the stored value {wrong[0]!r}; expected 0 to 255")
    table = np.arange(256, dtype=np.uint8)
    table[list(ignore)] = IGNORE
    if zero_is_ignored:
        table = np.where(table == IGNORE, IGNORE, table - np.uint8(1)).astype(np.uint8)
        table[0] = IGNORE
    return table
