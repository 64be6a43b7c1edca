"""Simple feature pyramid: several strides from a plain ViT's one map (ViTDet, arXiv 2203.16527)."""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from timm.layers import LayerNorm2d
from torch import Tensor, nn

SCALES = (4.0, 2.0, 1.0, 0.5)


class SimpleFeaturePyramid(nn.Module):
    """One map in, one map for each scale out, all with ``channels`` channels.

    Args:
        dim: channels of the input map.
        channels: channels of each output map.
        scales: resolution of each level against the input: a power of two. 4, 2, 1, 1/2 on a
            stride of 16 are the strides 4, 8, 16, 32 of the paper.

    Example:
        >>> pyramid = SimpleFeaturePyramid(192, 64)
        >>> [level.shape[-1] for level in pyramid(torch.zeros(1, 192, 14, 14)).values()]
        [56, 28, 14, 7]
    """

    def __init__(self, dim: int, channels: int = 256, *, scales: Sequence[float] = SCALES) -> None:
        super().__init__()
        if not scales or list(scales) != sorted(set(scales), reverse=True):
            raise ValueError(f"scales go from the finest to the coarsest, once each, got {scales}")
        self.dim, self.out_channels, self.scales = dim, channels, tuple(float(s) for s in scales)
        self.levels = nn.ModuleList(_level(dim, channels, scale) for scale in self.scales)

    def forward(self, feature_map: Tensor | Sequence[Tensor]) -> "OrderedDict[str, Tensor]":
        """(B, dim, h, w) -> {"0": (B, channels, h*scale, w*scale), ...}, finest first.

        Args:
            feature_map: one map for all levels, or one for each, finest level first.

        Raises:
            ValueError: another number of maps than of levels.
        """
        one = isinstance(feature_map, Tensor)
        maps = [feature_map] * len(self.levels) if one else list(feature_map)
        if len(maps) != len(self.levels):
            raise ValueError(f"{len(maps)} maps for a pyramid of {len(self.levels)} levels")
        return OrderedDict((str(i), f(m)) for i, (f, m) in enumerate(zip(self.levels, maps)))


def _level(dim: int, channels: int, scale: float) -> nn.Sequential:
    layers, width = _resample(dim, scale)
    return nn.Sequential(
        *layers,
        nn.Conv2d(width, channels, 1, bias=False),
        LayerNorm2d(channels),
        nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        LayerNorm2d(channels),
    )


def _resample(dim: int, scale: float) -> tuple[list[nn.Module], int]:
    """Layers that change the resolution by ``scale``, and the width that they leave."""
    steps = torch.tensor(scale).log2().item() if scale > 0 else 0.5
    if steps != round(steps):
        raise ValueError(f"a scale of the pyramid is a power of two, got {scale}")
    if steps <= 0:
        factor = 2 ** round(-steps)
        # ceil_mode keeps the last row of an odd grid
        pool: list[nn.Module] = [nn.MaxPool2d(factor, factor, ceil_mode=True)]
        return (pool if factor > 1 else []), dim
    layers: list[nn.Module] = []
    for step in range(round(steps)):
        if step:
            layers += [LayerNorm2d(dim), nn.GELU()]
        layers.append(nn.ConvTranspose2d(dim, dim // 2, 2, stride=2))
        dim //= 2
    return layers, dim
