"""A plain vision transformer of any width and depth: timm's class with its sizes in the open."""

from pathlib import Path
from typing import Literal

from timm.layers import PatchEmbed
from timm.models.vision_transformer import VisionTransformer

from visionlab.backbones.conv_stem import ConvPatchEmbed


def vit(
    img_size: int | tuple[int, int] = 224,
    patch_size: int | tuple[int, int] = 16,
    *,
    in_chans: int = 3,
    embed_dim: int = 192,
    depth: int = 12,
    num_heads: int = 3,
    mlp_ratio: float = 4.0,
    class_token: bool = True,
    reg_tokens: int = 0,
    drop_path_rate: float = 0.0,
    dynamic_img_size: bool = False,
    stem: Literal["patch", "conv"] = "patch",
    checkpoint_path: str | Path | None = None,
) -> VisionTransformer:
    """Build a ViT (arXiv 2010.11929) that returns all tokens, without a classifier.

    Args:
        img_size: input size (H, W) or side in pixels.
        patch_size: patch size (h, w) or side in pixels.
        in_chans: image channels.
        embed_dim: width; a multiple of ``num_heads``.
        depth: number of blocks.
        num_heads: attention heads.
        mlp_ratio: hidden width of the MLP over ``embed_dim``.
        class_token: whether a class token is put before the patches.
        reg_tokens: number of register tokens (arXiv 2309.16588).
        drop_path_rate: stochastic depth of the last block; it grows linearly from 0.
        dynamic_img_size: accept any image size that the patch divides.
        stem: "patch" embeds each patch by one linear layer, "conv" by a row of small convolutions
            (`ConvPatchEmbed`), which learns from fewer images; not for masked pre-training.
        checkpoint_path: local weights (see `visionlab.backbones.weights`).

    Raises:
        ValueError: a size that does not divide.
    """
    if embed_dim % num_heads:
        raise ValueError(f"embed_dim {embed_dim} is not a multiple of num_heads {num_heads}")
    if stem not in ("patch", "conv"):
        raise ValueError(f"stem is {stem!r}; expected 'patch' or 'conv'")
    model = VisionTransformer(
        img_size=img_size,
        patch_size=patch_size,
        in_chans=in_chans,
        num_classes=0,
        global_pool="",
        embed_dim=embed_dim,
        depth=depth,
        num_heads=num_heads,
        mlp_ratio=mlp_ratio,
        class_token=class_token,
        reg_tokens=reg_tokens,
        drop_path_rate=drop_path_rate,
        dynamic_img_size=dynamic_img_size,
        embed_layer=ConvPatchEmbed if stem == "conv" else PatchEmbed,
    )
    if checkpoint_path is not None:
        from visionlab.backbones.weights import load_encoder_weights

        load_encoder_weights(model, checkpoint_path)
    return model
