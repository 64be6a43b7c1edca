"""Parameters and FLOPs of a MoE ViT for one task, by formula.

torch's FLOP counter does not see grouped products. A multiply-add counts two, as there; norms,
softmax, biases and activations are left out, as there.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from visionlab.moe.attention import MoEAttention
from visionlab.moe.expert_usage import find_moe_vit
from visionlab.moe.layer import MoELayer
from visionlab.moe.surgery import count_parameters


class Cost(NamedTuple):
    """What one way of using or adapting a model costs.

    Attributes:
        trained: parameters that get a gradient.
        total: parameters that exist.
        flops: of one forward pass of the backbone for one image.
    """

    trained: int
    total: int
    flops: int


def cost(model: nn.Module, task: str | None, image_size: tuple[int, int]) -> Cost:
    """Count a model's parameters, and the FLOPs of its MoE ViT for one image of (H, W) pixels."""
    return Cost(*count_parameters(model), backbone_flops(model, task, image_size))


def backbone_flops(model: nn.Module, task: str | None, image_size: tuple[int, int]) -> int:
    """FLOPs of one forward pass of the MoE ViT in a model.

    Raises:
        ValueError: unknown task, or an image that the patch does not divide.
    """
    vit = find_moe_vit(model)
    (h, w), (ph, pw) = image_size, vit.patch_size
    if h % ph or w % pw:
        raise ValueError(f"patches of {ph}x{pw} pixels do not divide an image of {h}x{w}")
    patches = (h // ph) * (w // pw)
    total = _embedding(vit.patch_embed, (h, w))
    tokens = patches + vit.num_prefix_tokens
    blocks: Any = vit.blocks
    for block in blocks:
        total += _attention(block.attn, tokens, task) + _mlp(block.mlp, tokens, task)
    return total


def _embedding(embed: nn.Module, image_size: tuple[int, int]) -> int:
    """One convolution, or a stem of several: counted on an image, without prefix tokens."""
    first = next(m for m in embed.modules() if isinstance(m, nn.Conv2d))
    image = first.weight.new_zeros(1, first.in_channels, *image_size)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        embed(image)
    return int(counter.get_total_flops())


def _mlp(layer: Any, n: int, task: str | None) -> int:
    if isinstance(layer, MoELayer):
        _, router = layer.router(task)
        return 2 * n * (router.weight.numel() + router.top_k * 2 * layer.dim * layer.hidden_dim)
    return 2 * n * (layer.fc1.weight.numel() + layer.fc2.weight.numel())


def _attention(layer: Any, n: int, task: str | None) -> int:
    if isinstance(layer, MoEAttention):
        _, router = layer.router(task)
        linear = router.weight.numel() + layer.key_value.weight.numel()
        linear += router.top_k * 2 * layer.dim * layer.inner
        return 2 * n * linear + 4 * n * n * router.top_k * layer.inner
    linear = layer.qkv.weight.numel() + layer.proj.weight.numel()
    return int(2 * n * linear + 4 * n * n * layer.attn_dim)


def cost_table(costs: Mapping[str, Cost]) -> str:
    """A markdown table, one row per way.

    Example:
        >>> print(cost_table({"all": Cost(1_000_000, 2_000_000, 3_000_000_000)}))
        | way | trained parameters | total parameters | trained share | GFLOPs |
        |-|-|-|-|-|
        | all | 1,000,000 | 2,000,000 | 50.0 % | 3.00 |
    """
    lines = [
        "| way | trained parameters | total parameters | trained share | GFLOPs |",
        "|-|-|-|-|-|",
    ]
    for way, c in costs.items():
        lines.append(
            f"| {way} | {c.trained:,} | {c.total:,} | {100 * c.trained / c.total:.1f} % | "
            f"{c.flops / 1e9:.2f} |"
        )
    return "\n".join(lines)
