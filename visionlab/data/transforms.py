"""The recipes' image transforms: uint8 (3, H, W) in, uint8 of one size out.

They draw from torch's global generator, which the loader seeds from (seed, epoch, index).
"""

import torch
from torchvision.transforms import v2


def pretraining(
    size: int = 224, *, min_area: float = 0.2, horizontal_flip: bool = True
) -> v2.Transform:
    """Random resized crop and flip (MAE, arXiv 2111.06377, Table 8; no colour jitter).

    Args:
        size: side of the crop in pixels.
        min_area: smallest share of the image's area that a crop covers.
        horizontal_flip: mirror every second image.
    """
    crop = v2.RandomResizedCrop(
        size, scale=(min_area, 1.0), interpolation=v2.InterpolationMode.BICUBIC, antialias=True
    )
    return v2.Compose([crop, v2.RandomHorizontalFlip(0.5 if horizontal_flip else 0.0)])


def finetuning(size: int = 224, *, magnitude: int = 9, num_ops: int = 2) -> v2.Transform:
    """Random resized crop, flip and RandAugment (MAE, arXiv 2111.06377, Table 9).

    Args:
        size: side of the crop in pixels.
        magnitude: strength of RandAugment on its scale of 0..30.
        num_ops: operations per image.
    """
    crop = v2.RandomResizedCrop(size, interpolation=v2.InterpolationMode.BICUBIC, antialias=True)
    return v2.Compose([
        crop,
        v2.RandomHorizontalFlip(),
        v2.RandAugment(num_ops=num_ops, magnitude=magnitude),
        v2.ToDtype(torch.uint8, scale=True),
    ])  # fmt: skip


def evaluation(size: int = 224, *, crop_share: float = 0.875) -> v2.Transform:
    """Resize the shorter side to ``size / crop_share``, then crop the centre.

    Args:
        size: side of the crop in pixels.
        crop_share: share of the resized shorter side that the crop keeps.
    """
    resize = v2.Resize(
        round(size / crop_share), interpolation=v2.InterpolationMode.BICUBIC, antialias=True
    )
    return v2.Compose([resize, v2.CenterCrop(size)])
