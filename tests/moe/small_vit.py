"""A small ViT as if trained, pictures for it, and the same with MoE layers."""

import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from visionlab.moe import MoEVisionTransformer, insert_moe


def dense(**options: object) -> VisionTransformer:
    torch.manual_seed(0)
    vit = timm.create_model(
        "vit_tiny_patch16_224",
        **{"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 4, "num_heads": 3}
        | {"num_classes": 0, "global_pool": "", "dynamic_img_size": True}
        | options,
    )
    for p in vit.parameters():  # as if trained: nothing is zero
        nn.init.normal_(p, std=0.15)
    return vit.eval()


def images(size: int = 32) -> torch.Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))


def moe(**options: object) -> MoEVisionTransformer:
    defaults = {"num_experts": 6, "top_k": 2, "tasks": ("cls", "seg")}
    return insert_moe(dense(), **(defaults | options)).eval()
