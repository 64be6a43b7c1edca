"""Patches as vectors, and the reconstruction loss (He et al., CVPR 2022, section 3)."""

import torch
import torch.nn.functional as F
from torch import Tensor

_EPS = 1e-6


def patchify(images: Tensor, patch: tuple[int, int]) -> Tensor:
    """(B, C, H, W) -> (B, L, p * q * C): patches in row order, each as rows, columns, channels."""
    batch, channels, height, width = images.shape
    p, q = patch
    tiles = images.reshape(batch, channels, height // p, p, width // q, q)
    return tiles.permute(0, 2, 4, 3, 5, 1).reshape(batch, -1, p * q * channels)


def unpatchify(patches: Tensor, patch: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """Inverse of :func:`patchify`."""
    (p, q), (rows, columns) = patch, grid
    tiles = patches.reshape(len(patches), rows, columns, p, q, -1)
    return tiles.permute(0, 5, 1, 3, 2, 4).reshape(len(patches), -1, rows * p, columns * q)


def take(tokens: Tensor, ids: Tensor) -> Tensor:
    """Rows ``ids`` (B, K) of tokens (B, L, D), or of one table (1, L, D) for all."""
    if len(tokens) != len(ids):
        return tokens[0][ids]
    return tokens.gather(1, ids[:, :, None].expand(-1, -1, tokens.shape[2]))


def patch_statistics(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each patch, (B, L, 1): what norm-pix divides out."""
    variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
    return mean, torch.sqrt(variance + _EPS)


def reconstruction_loss(prediction: Tensor, patches: Tensor, *, norm_pix: bool) -> Tensor:
    """Mean squared error over the given (hidden) patches, in float32 also under autocast.

    Args:
        prediction: (B, T, P).
        patches: (B, T, P), the pixels.
        norm_pix: compare with pixels normalised per patch.
    """
    with torch.autocast(prediction.device.type, enabled=False):
        target = patches.float()
        if norm_pix:
            mean, deviation = patch_statistics(target)
            target = (target - mean) / deviation
        return F.mse_loss(prediction.float(), target)
