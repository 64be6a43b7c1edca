"""Running a timm ViT on its visible patches only.

Where the patch embedding is linear in the patch, the patches are gathered before they are
embedded: exact, and three quarters of that work are saved. Any other embedding (convolutional
stem, dropout on positions) sees the whole image first, then its tokens are gathered.
"""

from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import PatchEmbed, apply_keep_indices_nlc
from timm.models import checkpoint_seq
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from visionlab.masking.targets import take


def check_vit(backbone: nn.Module) -> None:
    """Accept timm's ``VisionTransformer`` and ``Eva`` families (the latter with rotary positions).

    Raises:
        TypeError: another network; masking tokens needs to know its layout.
        ValueError: the network drops patches itself.
    """
    if not isinstance(backbone, VisionTransformer | Eva):
        raise TypeError(
            f"a masked autoencoder needs a timm VisionTransformer or Eva model as backbone, got "
            f"{type(backbone).__name__}: its tokens cannot be dropped (relative position tables, "
            "windows "
            "or convolutions); choose from visionlab.backbones.list_backbones('vit_*')"
        )
    drop: Any = getattr(backbone, "patch_drop", None)
    if getattr(drop, "prob", 0.0):
        raise ValueError(
            f"the backbone drops patches itself (patch_drop_rate={drop.prob}); build it with "
            "patch_drop_rate=0"
        )
    windows = [
        i for i, b in enumerate(backbone.blocks) if hasattr(getattr(b, "attn", None), "window")
    ]  # type: ignore[arg-type]
    if windows:
        raise ValueError(
            f"the blocks {windows} of the backbone attend within windows of the whole image, which "
            "masks cut holes into; pre-train the ViT without windows and put them in afterwards"
        )


def drop_classifier(backbone: nn.Module) -> bool:
    """Remove a classification head, which would have no gradient; whether there was one."""
    vit: Any = backbone
    pooling = getattr(vit, "attn_pool", None) is not None
    head = any(True for _ in vit.head.parameters())
    if head or pooling:
        vit.reset_classifier(0, "" if pooling else None)
    return head or pooling


def patch_size(vit: Any) -> tuple[int, int]:
    """Rows and columns of pixels in a patch."""
    p, q = vit.patch_embed.feat_ratio(as_scalar=False)  # of a stem and its patches together
    return int(p), int(q)


def image_grid(vit: Any, images: Tensor) -> tuple[int, int]:
    """Grid of patches of a batch of images.

    Raises:
        TypeError: images that are not floating point.
        ValueError: wrong shape, channels or size; the sentence says which.
    """
    channels = _in_channels(vit)
    if images.ndim != 4 or (channels is not None and images.shape[1] != channels):
        raise ValueError(
            f"expected images of shape (B, {channels or 'C'}, H, W), got {tuple(images.shape)}"
        )
    if not images.is_floating_point():
        raise TypeError(
            f"expected normalised float images, got {images.dtype}: divide by 255, subtract the "
            "mean and "
            "divide by the deviation first"
        )
    (height, width), (p, q) = images.shape[2:], patch_size(vit)
    if height % p or width % q:
        raise ValueError(
            f"an image of {height}x{width} pixels is not divisible into {p}x{q} patches; "
            f"resize it to {max(height // p, 1) * p}x{max(width // q, 1) * q}"
        )
    own = vit.patch_embed.img_size
    if not vit.dynamic_img_size and own is not None and tuple(own) != (height, width):
        raise ValueError(
            f"the backbone takes images of {own[0]}x{own[1]}, got {height}x{width}; create it with "
            f"img_size=({height}, {width}), or with dynamic_img_size=True for any size"
        )
    return height // p, width // q


def _in_channels(vit: Any) -> int | None:
    embed = vit.patch_embed
    return embed.proj.in_channels if type(embed) is PatchEmbed else None


def embeds_linearly(vit: Any) -> bool:
    """Whether a patch's token depends on that patch alone, as a linear layer would do it."""
    embed = vit.patch_embed
    if type(embed) is not PatchEmbed or _dropout(vit.pos_drop):
        return False
    conv, size = embed.proj, tuple(embed.patch_size)
    return (
        type(conv) is nn.Conv2d
        and conv.kernel_size == conv.stride == size
        and conv.padding in ((0, 0), 0)
        and conv.dilation == (1, 1)
        and conv.groups == 1
    )


def _dropout(layer: Any) -> float:
    return float(getattr(layer, "p", 0))


def encode_visible(
    vit: Any, images: Tensor, patches: Tensor, ids_keep: Tensor, grid: tuple[int, int]
) -> Tensor:
    """Tokens (B, prefix + K, D) of the visible patches, after the last norm.

    Args:
        images: (B, C, H, W).
        patches: the same pixels as :func:`visionlab.masking.targets.patchify` gives them.
        ids_keep: (B, K).
    """
    if embeds_linearly(vit):
        tokens, rope = _embed_gathered(vit, take(patches, ids_keep), ids_keep, grid)
    else:
        tokens, rope = _positions(vit, vit.patch_embed(images))
        prefix = vit.num_prefix_tokens
        tokens = torch.cat([tokens[:, :prefix], take(tokens[:, prefix:], ids_keep)], 1)
    tokens = vit.norm_pre(tokens)
    if rope is None:
        return vit.norm(_run(vit, tokens))
    return vit.norm(_run_rotary(vit, tokens, _gather_rope(vit, tokens, rope, ids_keep)))


def _embed_gathered(
    vit: Any, patches: Tensor, ids_keep: Tensor, grid: tuple[int, int]
) -> tuple[Tensor, Tensor | None]:
    conv = vit.patch_embed.proj
    weight = conv.weight.permute(0, 2, 3, 1).flatten(1)  # rows, columns, channels: as in patchify
    tokens = vit.patch_embed.norm(F.linear(patches, weight, conv.bias))
    # the model's own code on zero tokens gives prefix tokens and all positions in one row
    shape = (1, *grid) if vit.dynamic_img_size else (1, grid[0] * grid[1])
    table, rope = _positions(vit, weight.new_zeros(*shape, len(weight)))
    prefix = vit.num_prefix_tokens
    tokens = tokens + take(table[:, prefix:], ids_keep)
    return torch.cat([table[:, :prefix].expand(len(tokens), -1, -1), tokens], 1), rope


def _positions(vit: Any, tokens: Tensor) -> tuple[Tensor, Tensor | None]:
    placed = vit._pos_embed(tokens)
    return placed if isinstance(placed, tuple) else (placed, None)


def _run(vit: Any, tokens: Tensor) -> Tensor:
    if vit.grad_checkpointing and vit.training:
        return checkpoint_seq(vit.blocks, tokens)
    for block in vit.blocks:
        tokens = block(tokens)
    return tokens


def _gather_rope(vit: Any, tokens: Tensor, rope: Tensor, ids_keep: Tensor) -> Tensor:
    """Rotary tables of the visible patches: one per image, with a place for the heads."""
    gathered = apply_keep_indices_nlc(tokens, rope, ids_keep)
    if getattr(vit, "rope_mixed", False):
        return gathered.transpose(0, 1)  # (depth, B, heads, K, dim)
    return gathered.unsqueeze(1)  # (B, 1, K, dim)


def _run_rotary(vit: Any, tokens: Tensor, rope: Tensor) -> Tensor:
    for depth, block in enumerate(vit.blocks):
        own = rope[depth] if getattr(vit, "rope_mixed", False) else rope
        if vit.grad_checkpointing and vit.training:
            tokens = checkpoint(block, tokens, rope=own, use_reentrant=False)
        else:
            tokens = block(tokens, rope=own)
    return tokens
