"""Fixed sine-cosine positions and MAE's initialisation (He et al., CVPR 2022, appendix A.1)."""

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


@lru_cache(maxsize=32)
def sincos_positions(grid: tuple[int, int], dim: int) -> Tensor:
    """Position embeddings of a grid in row order, (L, dim) float32.

    The first half encodes the column, the second the row, each as sines then cosines of geometric
    frequencies (Vaswani et al., 2017, section 3.5).

    Raises:
        ValueError: dim is no multiple of 4.
    """
    if dim % 4:
        raise ValueError(f"sine-cosine positions need a width divisible by 4, got {dim}")
    omega = 10000.0 ** -(np.arange(dim // 4) / (dim / 4))
    rows, columns = (axis.ravel()[:, None] * omega for axis in np.indices(grid))
    parts = [np.sin(columns), np.cos(columns), np.sin(rows), np.cos(rows)]
    return torch.from_numpy(np.concatenate(parts, 1)).float()


def initialize_like_mae(backbone: nn.Module) -> None:
    """MAE's initialisation of a timm ViT; its position embedding becomes fixed sine-cosine.

    Linear layers and the patch embedding (as a linear layer) are Xavier uniform, tokens N(0, .02).
    """
    initialize_linear_layers(backbone)
    vit: Any = backbone
    projection = getattr(vit.patch_embed, "proj", None)
    if isinstance(projection, nn.Conv2d):
        nn.init.xavier_uniform_(projection.weight.view(projection.out_channels, -1))
    for name in ("cls_token", "dist_token", "reg_token"):
        if getattr(vit, name, None) is not None:
            nn.init.normal_(getattr(vit, name), std=0.02)
    if getattr(vit, "pos_embed", None) is not None:
        patches = sincos_positions(tuple(vit.patch_embed.grid_size), vit.pos_embed.shape[-1])
        with torch.no_grad():
            vit.pos_embed.zero_()[0, -len(patches) :] = patches  # prefix tokens have no position
        vit.pos_embed.requires_grad_(False)


def initialize_linear_layers(module: nn.Module) -> None:
    """Xavier-uniform weights and zero biases; LayerNorm to the identity."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.LayerNorm) and layer.elementwise_affine:
            nn.init.ones_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def looks_trained(backbone: nn.Module) -> bool:
    """Whether any norm layer has left its initial value: true of every trained network."""
    for layer in backbone.modules():
        weight: Tensor | None = getattr(layer, "weight", None)
        norm = isinstance(layer, nn.LayerNorm | nn.RMSNorm)
        if norm and weight is not None and bool((weight != 1).any()):
            return True
    return False
