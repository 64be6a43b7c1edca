"""What a labelled sample looks like, and the checks that every reader puts its labels through.

A sample is a dict of `torchvision.tv_tensors`, which transforms v2 moves together:

    classification  {"image": Image, "label": int}
    detection       {"image": Image, "boxes": BoundingBoxes (n, 4) xyxy, "labels": (n,) int64,
                     "crowd": (n,) bool [, "masks": Mask (n, H, W)]}
    segmentation    {"image": Image, "mask": Mask (H, W) uint8, 255 = ignore}

A reader is a map-style data set with ``kind`` (one of the three) and ``classes`` (their names).
"""

import logging
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors

from visionlab.data.decoding import UNREADABLE, decode_rgb
from visionlab.registry import suggest

IGNORE = 255
KINDS = ("classification", "detection", "segmentation")
_OUTSIDE_PX = 2.0  # boxes of real sets pass the border by rounding; farther is a mistake

log = logging.getLogger("visionlab")


def read_image(path: Path) -> tv_tensors.Image:
    """(3, H, W) uint8 RGB.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is no picture.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no image at {path}; images and annotations disagree")
    return decode(path.read_bytes(), str(path))


def decode(data: bytes, source: str) -> tv_tensors.Image:
    """(3, H, W) uint8 RGB from the bytes of a picture, as stored: labels mean stored pixels."""
    try:
        return tv_tensors.Image(decode_rgb(data))
    except UNREADABLE as error:
        raise ValueError(f"{source} is no readable picture ({error}); replace it") from error


def need_folder(path: str | Path, what: str) -> Path:
    """``path`` if it is a folder.

    Raises:
        FileNotFoundError: it is none.
    """
    path = Path(path)
    if not path.is_dir():
        raise FileNotFoundError(f"no folder {path} ({what}); see datasets.md for the layout")
    return path


def need_file(path: str | Path, what: str) -> Path:
    """``path`` if it is a file.

    Raises:
        FileNotFoundError: it is none.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {path} ({what}); see datasets.md for the layout")
    return path


def need_samples(count: int, source: str | Path) -> None:
    """Raise when a data set is empty."""
    if count < 1:
        raise ValueError(f"{source} holds no sample; check the path, the split and the file names")


def class_names(classes: Sequence[str] | int) -> list[str]:
    """Different names, or ``"0", "1", ...`` for a number of classes.

    Raises:
        ValueError: no class, one string, or a name twice.
    """
    names = [str(i) for i in range(classes)] if isinstance(classes, int) else list(classes)
    if isinstance(classes, str) or not names or len(set(names)) < len(names):
        raise ValueError(f"classes are a list of different names, or their number; got {classes!r}")
    return names


def check_limit(limit: int | None) -> int | None:
    """``limit`` if it is None or positive."""
    if limit is not None and limit < 1:
        raise ValueError(f"limit is {limit}; expected at least 1, or null for all")
    return limit


def class_index(name: str, classes: Sequence[str], source: str) -> int:
    """Position of a class name; a wrong name gets the nearest right one."""
    if name not in classes:
        raise ValueError(f"{source} has the class '{name}'. {suggest(name, classes)}")
    return list(classes).index(name)


def check_label(label: int, classes: Sequence[str], source: str) -> int:
    """``label`` if it indexes ``classes``."""
    if not 0 <= label < len(classes):
        raise ValueError(
            f"{source} has the label {label}, outside 0..{len(classes) - 1} "
            f"({len(classes)} classes); check the class list or the numbering"
        )
    return label


def detection_sample(
    image: Tensor,
    boxes: Any,
    labels: Any,
    *,
    classes: Sequence[str],
    source: str,
    crowd: Any = None,
    masks: Tensor | None = None,
) -> dict[str, Any]:
    """A detection sample with clipped boxes; boxes of zero area are dropped and logged.

    Args:
        image: (3, H, W) uint8.
        boxes: (n, 4) x1, y1, x2, y2 px, half open; none is fine.
        labels: (n,) class of each box.
        classes: class names.
        source: what to call the sample in messages.
        crowd: (n,) bool, boxes around many objects: they neither train nor count.
        masks: (n, H, W) instance masks.

    Raises:
        ValueError: a box lies outside the image, a label outside the classes, or labels, crowd
            flags or masks of another number or size.
    """
    height, width = image.shape[-2:]
    box = torch.as_tensor(_rows(boxes, 4, source))
    numbers = np.asarray(labels).reshape(-1)
    with np.errstate(invalid="ignore"):  # not-a-number is told below
        label = torch.as_tensor(numbers.astype(np.int64))
    many = torch.as_tensor(np.zeros(len(box)) if crowd is None else np.asarray(crowd)).bool()
    if not len(box) == len(label) == many.numel():
        raise ValueError(
            f"{source} has {len(box)} boxes, {len(label)} labels and {many.numel()} crowd flags; "
            "they must be of one number"
        )
    for stored, value in zip(numbers.tolist(), label.tolist(), strict=True):
        if stored != value:
            raise ValueError(f"{source} has the label {stored}, which is no whole number")
        check_label(value, classes, source)
    _check_inside(box, width, height, source)
    box = box.clamp(min=0).minimum(torch.tensor([width, height] * 2, dtype=box.dtype))
    keep = ((box[:, 2:] - box[:, :2]) > 0).all(1)
    if not keep.all():
        _log_dropped(source, int((~keep).sum()))
    sample = {
        "image": tv_tensors.Image(image),
        "boxes": tv_tensors.BoundingBoxes(
            box[keep],
            format="XYXY",
            canvas_size=(height, width),  # type: ignore[call-overload]
        ),
        "labels": label[keep],
        "crowd": many.reshape(-1)[keep],
    }
    if masks is not None:
        if tuple(masks.shape) != (len(box), height, width):
            raise ValueError(
                f"{source}: the instance masks are {tuple(masks.shape)}, expected "
                f"{(len(box), height, width)} for {len(box)} boxes on {width}x{height} px"
            )
        sample["masks"] = tv_tensors.Mask(masks[keep])
    return sample


def _rows(values: Any, width: int, source: str) -> np.ndarray:
    """(n, width) float32."""
    rows = np.asarray(values, np.float32)
    if rows.size and rows.shape[1:] != (width,):
        raise ValueError(f"{source} has boxes of shape {rows.shape}, expected (n, {width})")
    return rows.reshape(-1, width)


@cache  # once for each sample, not once each epoch
def _log_dropped(source: str, count: int) -> None:
    log.warning("%s: dropped %d boxes of zero area", source, count)


def half_open(boxes: np.ndarray) -> np.ndarray:
    """Boxes (n, 4) that count pixels from 1 and include the last one (VOC), half open from 0.

    A box without extent stays one, so that it is dropped and not taken for one pixel.
    """
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    extent = ((boxes[:, 2:] - boxes[:, :2]) > 0).all(1, keepdims=True)
    return boxes - np.array([1, 1, 0, 0], np.float32) * extent


def _check_inside(boxes: Tensor, width: int, height: int, source: str) -> None:
    low = boxes.new_tensor([-_OUTSIDE_PX] * 4)
    high = boxes.new_tensor([width, height] * 2) + _OUTSIDE_PX
    bad = ~((boxes >= low) & (boxes <= high)).all(1)  # not-a-number is bad, too
    if bad.any():
        box = [round(v, 1) for v in boxes[bad][0].tolist()]
        raise ValueError(
            f"{source}: the box {box} lies outside its image of {width}x{height} px; boxes are "
            "x1, y1, x2, y2 in pixels of the stored picture"
        )


def label_map(stored: Any, source: str) -> np.ndarray:
    """``stored`` as uint8, if that changes no value."""
    stored = np.asarray(stored)
    with np.errstate(invalid="ignore"):  # not-a-number is told below
        labels = stored.astype(np.uint8)
    if not np.array_equal(stored, labels):
        raise ValueError(
            f"{source} holds values from {stored.min()} to {stored.max()} as {stored.dtype}; a "
            "label map holds whole numbers from 0 to 255"
        )
    return labels


def segmentation_sample(
    image: Tensor, mask: Any, *, classes: Sequence[str], source: str
) -> dict[str, Any]:
    """A segmentation sample.

    Args:
        image: (3, H, W) uint8.
        mask: (H, W) class of each pixel; 255 is ignored.
        classes: class names.
        source: what to call the sample in messages.

    Raises:
        ValueError: the mask has another size than the image, or a label outside the classes.
    """
    labels = torch.as_tensor(label_map(mask, source))
    if labels.shape != image.shape[-2:]:
        raise ValueError(
            f"{source}: the mask is {tuple(labels.shape)}, the image {tuple(image.shape[-2:])} "
            "(height, width); they must be of one size"
        )
    valid = labels[labels != IGNORE]
    if len(valid):
        check_label(int(valid.max()), classes, source)
    return {"image": tv_tensors.Image(image), "mask": tv_tensors.Mask(labels)}
