"""An image classifier over any registry backbone: what fine-tuning and probing train."""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from visionlab.backbones.protocol import layer_groups, num_features, num_prefix_tokens
from visionlab.heads.batch_norm import GlobalBatchNorm1d


class ImageClassifier(nn.Module):
    """Backbone, pooling, optional normalisation, linear layer.

    Args:
        backbone: transformer or convolutional network of the registry.
        num_classes: number of classes.
        pool: ``"mean"`` over patches or ``"token"``, the class token. Both see the backbone's own
            last norm (MAE fine-tuning drops it under mean pooling; here the encoder stays whole,
            so that it can be exported again).
        norm: before the linear layer: ``"layer"``, ``"batch"`` (without affine, as in MAE's
            linear probe, arXiv 2111.06377 A.1; over the batches of all ranks) or ``"none"``.
        freeze_backbone: keep the backbone fixed and in eval mode.

    Raises:
        ValueError: fewer than two classes, or ``pool="token"`` without a class token.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        *,
        pool: Literal["mean", "token"] = "mean",
        norm: Literal["layer", "batch", "none"] = "layer",
        freeze_backbone: bool = False,
    ) -> None:
        super().__init__()
        if num_classes < 2:
            raise ValueError(f"num_classes is {num_classes}; a classifier needs at least 2")
        if pool == "token" and getattr(backbone, "cls_token", None) is None:
            raise ValueError("pool='token' needs a backbone with a class token; use pool='mean'")
        self.backbone = backbone
        self.pool = pool
        self.freeze_backbone = freeze_backbone
        width = num_features(backbone)
        self.norm = _norm(norm, width)
        self.head = nn.Linear(width, num_classes)
        nn.init.trunc_normal_(self.head.weight, std=0.01 if freeze_backbone else 2e-5)
        nn.init.zeros_(self.head.bias)
        if freeze_backbone:
            backbone.requires_grad_(False)

    def features(self, images: Tensor) -> Tensor:
        """Pooled features (B, D) of normalised images (B, C, H, W)."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freeze_backbone):
            return pool_features(self.backbone, images, self.pool)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, num_classes) of normalised images (B, C, H, W)."""
        return self.head(self.norm(self.features(images)))

    def train(self, mode: bool = True) -> "ImageClassifier":
        """A frozen backbone stays in eval mode."""
        super().train(mode)
        if self.freeze_backbone:
            self.backbone.eval()
        return self

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Depth of each parameter for layer-wise learning-rate decay (timm's convention)."""
        return layer_groups("backbone.")


def _norm(kind: str, width: int) -> nn.Module:
    if kind == "batch":
        return GlobalBatchNorm1d(width, affine=False, eps=1e-6)
    return nn.LayerNorm(width) if kind == "layer" else nn.Identity()


def pool_features(backbone: nn.Module, images: Tensor, pool: str) -> Tensor:
    """(B, D): the class token, or the mean over patches or over the map."""
    features: Tensor = backbone.forward_features(images)  # type: ignore[operator]
    if features.ndim == 4:
        return features.mean((2, 3))
    return features[:, 0] if pool == "token" else features[:, num_prefix_tokens(backbone) :].mean(1)
