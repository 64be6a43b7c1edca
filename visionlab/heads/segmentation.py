"""Semantic segmentation on a plain ViT: a linear classifier of patches, and a light UPerNet."""

from collections.abc import Sequence

import torch
from timm.layers import LayerNorm2d
from torch import Tensor, nn
from torch.nn import functional as F

from visionlab.heads.features import Features, LossSum, check_classes, check_dim
from visionlab.heads.pyramid import SCALES, SimpleFeaturePyramid
from visionlab.heads.sliding import check_stride

IGNORE_LABEL = 255


class _SegmentationHead(nn.Module):
    """What the two heads share: loss and prediction from logits at image size.

    ``crop`` and ``stride`` are read by `MultiTaskModel.predict`; see `visionlab.heads.sliding`.
    """

    kind = "segmentation"

    def __init__(self, dim: int, num_classes: int, crop: int | None, stride: int | None) -> None:
        super().__init__()
        if num_classes > IGNORE_LABEL:
            raise ValueError(
                f"label maps hold up to {IGNORE_LABEL} classes (the label {IGNORE_LABEL} is left "
                f"out), got num_classes={num_classes}"
            )
        self.dim, self.num_classes = dim, check_classes(num_classes)
        self.crop, self.stride = crop, check_stride(crop, stride)

    def loss(self, outputs: Tensor, batch: dict) -> LossSum:
        """Cross entropy with ``batch["mask"]`` (B, H, W); the label 255 is left out."""
        mask = batch["mask"].long()
        if mask.shape[-2:] != outputs.shape[-2:]:
            raise ValueError(
                f"the masks are {tuple(mask.shape[-2:])} px, the images "
                f"{tuple(outputs.shape[-2:])} px; resize both together"
            )
        total = F.cross_entropy(outputs.float(), mask, ignore_index=IGNORE_LABEL, reduction="sum")
        return LossSum(total, (mask != IGNORE_LABEL).sum().to(torch.float32))

    @torch.no_grad()
    def predict(self, outputs: Tensor) -> Tensor:
        """(B, H, W) int64, the class of each pixel."""
        return outputs.argmax(1)


class LinearSegmentationHead(_SegmentationHead):
    """One linear layer on each patch token, enlarged bilinearly.

    Args:
        dim: width of the backbone.
        num_classes: number of classes, background included where it is one.
        cells: side of the grid of logits that each patch predicts; 1 is the plain linear probe,
            more lets small objects be seen without convolutions (pixel shuffle).
        crop: predict larger pictures by windows of this side in px; whole pictures if None.
        stride: distance of the windows; two thirds of ``crop`` if None.
    """

    def __init__(
        self,
        dim: int,
        num_classes: int,
        *,
        cells: int = 1,
        crop: int | None = None,
        stride: int | None = None,
    ) -> None:
        super().__init__(dim, num_classes, crop, stride)
        if cells < 1:
            raise ValueError(f"cells is at least 1, got {cells}")
        self.cells = cells
        self.classify = nn.Conv2d(dim, num_classes * cells**2, 1)
        nn.init.trunc_normal_(self.classify.weight, std=0.02)
        nn.init.zeros_(self.classify.bias)  # type: ignore[arg-type]

    def forward(self, features: Features) -> Tensor:
        """(B, classes, H, W) logits."""
        check_dim(self, self.dim, features)
        logits = F.pixel_shuffle(self.classify(features.map), self.cells)
        return _enlarge(logits, features.image_size)


class UPerSegmentationHead(_SegmentationHead):
    """A light UPerNet (Xiao et al. 2018): pooled context, top-down fusion, one classifier.

    Its levels come from a `SimpleFeaturePyramid` over the last map or, as in the ADE20K recipe of
    masked autoencoders (blocks 3, 5, 7, 11 of ViT-B), over those of several blocks. Its norms keep
    no running statistics, so one network may serve several data sets.

    Args:
        dim: width of the backbone.
        num_classes: number of classes, background included where it is one.
        channels: width of the head.
        scales: levels of the pyramid, see `SimpleFeaturePyramid`.
        pools: sides of the grids of pooled context.
        blocks: blocks of the backbone whose maps make the levels, finest level first; the last
            map makes all of them if None.
        crop: predict larger pictures by windows of this side in px; whole pictures if None.
        stride: distance of the windows; two thirds of ``crop`` if None (512 and 341 in the recipe).

    Raises:
        ValueError: another number of blocks than of scales.
    """

    def __init__(
        self,
        dim: int,
        num_classes: int,
        *,
        channels: int = 128,
        scales: Sequence[float] = SCALES,
        pools: Sequence[int] = (1, 2, 3, 6),
        blocks: Sequence[int] | None = None,
        crop: int | None = None,
        stride: int | None = None,
    ) -> None:
        super().__init__(dim, num_classes, crop, stride)
        if blocks is not None and len(blocks) != len(scales):
            raise ValueError(
                f"{len(blocks)} blocks for {len(scales)} scales; name one block for each level"
            )
        self.blocks = None if blocks is None else list(blocks)
        self.pyramid = SimpleFeaturePyramid(dim, channels, scales=scales)
        self.pools = tuple(pools)
        self.context = nn.ModuleList(nn.Conv2d(channels, channels // 4, 1) for _ in pools)
        self.mix = _conv(channels + len(self.pools) * (channels // 4), channels)
        self.smooth = nn.ModuleList(_conv(channels, channels) for _ in scales[:-1])
        self.fuse = _conv(channels * len(scales), channels)
        self.classify = nn.Conv2d(channels, num_classes, 1)

    def forward(self, features: Features) -> Tensor:
        """(B, classes, H, W) logits."""
        check_dim(self, self.dim, features)
        maps = features.map if self.blocks is None else features.block_maps
        *finer, coarsest = self.pyramid(maps).values()
        top = self._with_context(coarsest)
        levels = [top]
        for level, smooth in zip(reversed(finer), reversed(self.smooth)):
            top = level + _enlarge(top, level.shape[-2:])
            levels.append(smooth(top))
        finest = levels[-1].shape[-2:]
        fused = self.fuse(torch.cat([_enlarge(level, finest) for level in levels], dim=1))
        return _enlarge(self.classify(fused), features.image_size)

    def _with_context(self, level: Tensor) -> Tensor:
        pooled = [
            _enlarge(conv(F.adaptive_avg_pool2d(level, side)), level.shape[-2:])
            for side, conv in zip(self.pools, self.context)
        ]
        return self.mix(torch.cat([level, *pooled], dim=1))


def _conv(inputs: int, outputs: int) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    return nn.Sequential(conv, LayerNorm2d(outputs), nn.GELU())


def _enlarge(maps: Tensor, size: Sequence[int]) -> Tensor:
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)
