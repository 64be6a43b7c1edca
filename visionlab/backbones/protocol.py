"""What the project needs of a backbone: timm's own ViT protocol, written down.

A transformer backbone has

- ``forward_features(images (B, C, H, W)) -> tokens (B, P + L, D)``: P prefix tokens (class and
  register tokens), then L patches in row order, after the last norm;
- ``forward_intermediates(images, indices=[...])``: the maps (B, D, H', W') of chosen blocks;
- ``patch_embed.patch_size`` (h, w) pixels, ``embed_dim`` D, ``num_prefix_tokens`` P, ``blocks``.

A convolutional backbone has ``forward_features -> (B, D, H', W')`` and ``num_features``; heads
that need one map take it through `feature_map`, which serves both.
"""

import re
from typing import Any

from torch import Tensor, nn


def patch_size(backbone: nn.Module) -> tuple[int, int]:
    """Patch size (h, w) of a transformer backbone in pixels.

    Raises:
        TypeError: the backbone has no patch embedding.
    """
    embed: Any = getattr(backbone, "patch_embed", None)
    size = getattr(embed, "patch_size", None)
    if size is None:
        raise TypeError(
            f"{type(backbone).__name__} has no patch embedding; choose a vision transformer, "
            "for example from list_backbones('vit_*')"
        )
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def grid_size(backbone: nn.Module, image_size: tuple[int, int]) -> tuple[int, int]:
    """Patches per column and row (H', W') of an image of (H, W) pixels.

    Raises:
        ValueError: the patch does not divide the image.
    """
    (h, w), (ph, pw) = image_size, patch_size(backbone)
    if h % ph or w % pw:
        raise ValueError(
            f"the image is {h}x{w} pixels, which patches of {ph}x{pw} do not divide; resize it "
            f"to {h // ph * ph or ph}x{w // pw * pw or pw}"
        )
    return h // ph, w // pw


def num_prefix_tokens(backbone: nn.Module) -> int:
    """Tokens before the patches: class token and registers."""
    return int(getattr(backbone, "num_prefix_tokens", 0))


def num_features(backbone: nn.Module) -> int:
    """Channels of the output."""
    return int(getattr(backbone, "num_features", getattr(backbone, "embed_dim", 0)))


def layer_groups(prefix: str) -> dict[str, Any]:
    """Depth of the parameters below ``prefix``, as timm's `param_groups_layer_decay` reads it.

    The stem comes first, then the blocks; what no pattern names (last norm, heads, weights of
    tasks) forms the last group, at the full rate.

    Args:
        prefix: name of the backbone in the model, with its dot; MoE layers may lie around it.
    """
    start = rf"^{re.escape(prefix)}(?:vit\.)?"
    return {
        "stem": start + r"(?:cls_token|reg_token|pos_embed|patch_embed|norm_pre)",
        "blocks": [(start + r"blocks\.(\d+)", None)],
    }


def feature_map(backbone: nn.Module, images: Tensor) -> Tensor:
    """The last feature map (B, D, H', W') of images (B, C, H, W), for any backbone."""
    features: Tensor = backbone.forward_features(images)  # type: ignore[operator]
    if features.ndim == 4:
        return features
    h, w = grid_size(backbone, (images.shape[-2], images.shape[-1]))
    patches = features[:, num_prefix_tokens(backbone) :]
    return patches.transpose(1, 2).unflatten(2, (h, w))
