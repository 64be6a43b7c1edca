"""Registered vision transformers with MoE layers.

create_backbone("moe_vit_small", tasks=["cls", "det"], num_experts=16, top_k=4)
create_backbone("moe_vit", backbone=create_backbone("vit_small_patch16_224"), tasks=["cls"])
"""

from pathlib import Path
from typing import Any, TypedDict, Unpack

from torch import nn

from visionlab.backbones.vit import vit
from visionlab.moe.insertion import insert_moe
from visionlab.moe.vit import MoEVisionTransformer


class MoEOptions(TypedDict, total=False):
    """Options of `visionlab.moe.insert_moe`, which explains them and holds their defaults."""

    layers: str | list[int]
    num_experts: int
    top_k: int
    hidden_dim: int | None
    tasks: list[str] | tuple[str, ...]
    attention: bool
    attention_experts: int | None
    attention_top_k: int | None
    upcycle: bool
    backend: str
    noise_std: float
    normalize_gates: bool | None
    layout: dict[str, Any] | None


class MoEViT(MoEVisionTransformer):
    """Any timm ViT of the registry with MoE layers (``moe_vit``).

    Args:
        backbone: the ViT, with or without trained weights; it is copied.
        **moe: options of `visionlab.moe.insert_moe`.

    Raises:
        TypeError: the backbone is no plain timm ViT, or an unknown option.
        ValueError: see `visionlab.moe.insert_moe`.
    """

    def __init__(self, backbone: nn.Module, **moe: Unpack[MoEOptions]) -> None:
        super().__init__(insert_moe(backbone, **moe).vit)


class MoEViTTiny(MoEViT):
    """ViT-Ti (width 192) with MoE layers (``moe_vit_tiny``).

    Args:
        img_size: input size (H, W) or side in pixels; other sizes are accepted at run time.
        patch_size: patch size (h, w) or side in pixels.
        in_chans: image channels.
        depth: number of blocks.
        drop_path_rate: stochastic depth of the last block.
        checkpoint_path: local weights of a dense ViT (see `visionlab.backbones.weights`); with
            ``upcycle=True`` the experts start from them.
        **moe: options of `visionlab.moe.insert_moe`.
    """

    width, heads = 192, 3

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        patch_size: int | tuple[int, int] = 16,
        *,
        in_chans: int = 3,
        depth: int = 12,
        drop_path_rate: float = 0.0,
        checkpoint_path: str | Path | None = None,
        **moe: Unpack[MoEOptions],
    ) -> None:
        dense = vit(
            img_size,
            patch_size,
            in_chans=in_chans,
            embed_dim=self.width,
            depth=depth,
            num_heads=self.heads,
            drop_path_rate=drop_path_rate,
            dynamic_img_size=True,
            checkpoint_path=checkpoint_path,
        )
        super().__init__(dense, **moe)


class MoEViTSmall(MoEViTTiny):
    """ViT-S (width 384) with MoE layers (``moe_vit_small``); arguments as `MoEViTTiny`."""

    width, heads = 384, 6


class MoEViTBase(MoEViTTiny):
    """ViT-B (width 768) with MoE layers (``moe_vit_base``); arguments as `MoEViTTiny`."""

    width, heads = 768, 12
