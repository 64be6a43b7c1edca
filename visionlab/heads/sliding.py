"""Segmentation of large pictures by overlapping windows whose logits are averaged.

The protocol behind published ADE20K figures: the network sees crops of the size that it was
trained on. A picture that fits into one window is predicted in one pass, exactly.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def check_stride(crop: int | None, stride: int | None) -> int | None:
    """The distance of windows of side ``crop``: two thirds of it if None.

    Raises:
        ValueError: windows that would leave gaps, or a stride without a crop.
    """
    if crop is None:
        if stride is not None:
            raise ValueError(f"stride is {stride} without a crop; give both, as 341 and 512")
        return None
    stride = max(crop * 2 // 3, 1) if stride is None else stride
    if not 1 <= stride <= crop:
        raise ValueError(f"stride is {stride}; it lies between 1 and the crop, {crop} px")
    return stride


def window_starts(length: int, crop: int, stride: int) -> list[int]:
    """Where windows begin along an axis; the last one ends with the picture."""
    count = max(-(-(length - crop) // stride), 0) + 1
    return [min(i * stride, max(length - crop, 0)) for i in range(count)]


def sliding_classes(
    logits: Callable[[Tensor, Tensor], Tensor],
    images: Tensor,
    sizes: Tensor,
    *,
    crop: int,
    stride: int,
    windows_per_pass: int = 8,
) -> Tensor:
    """Classes of all pixels from the mean of the logits of all windows over them.

    Args:
        logits: windows (n, C, h, w) and the sizes (n, 2) of what of them is no padding ->
            (n, classes, h, w).
        images: (B, C, H, W).
        sizes: (B, 2) height and width of each picture without its padding at right and bottom.
        crop: side of a window in px.
        stride: distance of the windows.
        windows_per_pass: windows that run together.

    Returns:
        (B, H, W) int64; 0 on padding that no window has seen.
    """
    classes = torch.zeros(len(images), *images.shape[-2:], dtype=torch.int64, device=images.device)
    for picture, (image, size) in enumerate(zip(images, sizes.tolist())):
        height, width = (min(crop, int(n)) for n in image.shape[-2:])
        corners = [
            (y, x)
            for y in window_starts(size[0], crop, stride)
            for x in window_starts(size[1], crop, stride)
        ]
        total: Tensor | None = None
        counts = images.new_zeros(image.shape[-2:])
        for start in range(0, len(corners), windows_per_pass):
            some = corners[start : start + windows_per_pass]
            windows = torch.stack([image[:, y : y + height, x : x + width] for y, x in some])
            inside = [(min(size[0] - y, height), min(size[1] - x, width)) for y, x in some]
            for (y, x), found in zip(some, logits(windows, torch.tensor(inside).to(sizes))):
                if total is None:
                    total = found.new_zeros(len(found), *image.shape[-2:])
                total[:, y : y + height, x : x + width] += found
                counts[y : y + height, x : x + width] += 1
        assert total is not None  # a picture has at least one window
        classes[picture] = (total / counts.clamp(min=1)).argmax(0)
    return classes
