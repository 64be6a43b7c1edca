"""Transforms v2 for samples with boxes or masks: picture and labels move together.

They draw from torch's global generator, which the loader seeds from (seed, epoch, index).
"""

from torchvision import tv_tensors
from torchvision.transforms import v2

from visionlab.data.samples import IGNORE

_FILL = {tv_tensors.Image: (124, 116, 104), tv_tensors.Mask: IGNORE, "others": 0}  # mean colour


def jitter_crop(
    size: int, *, scale: tuple[float, float] = (0.5, 2.0), horizontal_flip: bool = True
) -> v2.Transform:
    """Large-scale jitter, a crop of one size, flip (Ghiasi et al., arXiv 2012.07177).

    Args:
        size: side of the crop in px.
        scale: range of the random resize against the size that fits.
        horizontal_flip: mirror every second picture; off where left and right mean something.
    """
    return v2.Compose(
        [
            v2.ScaleJitter((size, size), scale_range=scale, antialias=True),
            v2.RandomCrop(size, pad_if_needed=True, fill=_FILL),
            v2.RandomHorizontalFlip(0.5 if horizontal_flip else 0.0),
            *_clean_boxes(),
        ]
    )


def fit_inside(size: int, *, horizontal_flip: bool = False) -> v2.Transform:
    """Resize so that the longer side is ``size``; the loader pads the rest at right and bottom.

    Args:
        size: longer side in px.
        horizontal_flip: mirror every second picture (training).
    """
    flip = [v2.RandomHorizontalFlip()] if horizontal_flip else []
    return v2.Compose([v2.Resize(None, max_size=size, antialias=True), *flip, *_clean_boxes()])


def shorter_side(size: int, *, max_size: int | None = None) -> v2.Transform:
    """Resize so that the shorter side is ``size``, the longer at most ``max_size``.

    For segmentation by windows; the pictures of ADE20K come at 512 px already.

    Args:
        size: shorter side in px.
        max_size: limit of the longer side in px; no limit if None.
    """
    return v2.Compose([v2.Resize(size, max_size=max_size, antialias=True), *_clean_boxes()])


def _clean_boxes() -> list[v2.Transform]:
    """Clip to the picture, then drop what a crop has left of less than a pixel."""
    return [v2.ClampBoundingBoxes(), _DropTinyBoxes()]


class _DropTinyBoxes(v2.Transform):
    """`v2.SanitizeBoundingBoxes` for samples that may have no boxes at all."""

    def __init__(self) -> None:
        super().__init__()
        self._sanitize = v2.SanitizeBoundingBoxes(
            min_size=1, labels_getter=lambda sample: (sample["labels"], sample["crowd"])
        )

    def forward(self, sample: dict) -> dict:  # type: ignore[override]
        if "masks" in sample:  # padding is no part of an instance
            inside = sample["masks"] * (sample["masks"] != IGNORE)
            sample = {**sample, "masks": tv_tensors.Mask(inside)}
        return self._sanitize(sample) if "boxes" in sample else sample
