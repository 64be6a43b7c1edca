"""Sparse upcycling: experts from trained dense weights, with an equal output at the start.

Sparse Upcycling (arXiv 2212.05055) copies the dense MLP into every expert; virtual groups
(arXiv 2410.07524) cut it into k slices, so that the mixture also costs what the MLP did.
"""

from typing import Any

import torch
from timm.layers import Attention, Mlp
from torch import Tensor, nn

from visionlab.moe.attention import MoEAttention
from visionlab.moe.layer import MoELayer


@torch.no_grad()
def upcycle_mlp(layer: MoELayer, dense: Mlp, top_k: int) -> None:
    """Experts from a dense MLP, such that the gated sum equals it."""
    block: Any = layer.experts[0]
    width, experts = dense.fc1.weight.shape[0], layer.num_experts
    _check_upcycle(layer, dense.act, dense.drop1, dense.norm)
    b1, b2 = _bias(dense.fc1), _bias(dense.fc2)
    if layer.hidden_dim == width:
        slices, scale = [slice(0, width)] * experts, 1.0
    elif layer.hidden_dim * top_k == width and experts % top_k == 0:
        h = layer.hidden_dim
        slices = [slice(e % top_k * h, (e % top_k + 1) * h) for e in range(experts)]
        scale = float(top_k)  # k gates of 1 / k each
        for router in layer.task_routers().values():  # the k slices of one group score alike
            router.weight.copy_(router.weight[::top_k].repeat_interleave(top_k, 0))
    else:
        raise ValueError(
            f"cannot upcycle an MLP of width {width} into {experts} experts of width "
            f"{layer.hidden_dim} with top_k={top_k}: pass hidden_dim={width} (copies), or "
            f"hidden_dim={width // top_k} with num_experts a multiple of top_k (slices)"
        )
    for e, part in enumerate(slices):
        block.w1[e], block.b1[e] = dense.fc1.weight[part], b1[part]
        block.w2[e], block.b2[e] = dense.fc2.weight[:, part] * scale, b2


def _check_upcycle(layer: MoELayer | MoEAttention, *must_be_plain: nn.Module | None) -> None:
    if not layer.normalize_gates:
        raise ValueError(
            "upcycling needs gates that sum to one: pass top_k >= 2, or normalize_gates=True"
        )
    for m in must_be_plain:
        plain = m is None or isinstance(m, nn.Identity) or getattr(m, "p", 1.0) == 0.0
        if not plain and not (isinstance(m, nn.GELU) and m.approximate == "none"):
            raise ValueError(
                f"cannot upcycle a block with {m}: its MLP must be Linear-GELU-Linear and its "
                "attention plain, without dropout or inner norms"
            )


def _bias(linear: Any) -> Tensor:
    bias: Tensor | None = linear.bias
    return linear.weight.new_zeros(linear.weight.shape[0]) if bias is None else bias


@torch.no_grad()
def upcycle_attention(layer: MoEAttention, dense: Attention) -> None:
    """Every expert gets the whole query and output projection; keys and values are shared."""
    _check_upcycle(
        layer,
        *(dense.q_norm, dense.k_norm, dense.norm, dense.gate),
        *(dense.attn_drop, dense.proj_drop),
    )
    block: Any = layer.experts[0]
    inner = layer.inner
    weight, bias = dense.qkv.weight, _bias(dense.qkv)
    block.wq[:], block.bq[:] = weight[:inner], bias[:inner]
    layer.key_value.weight.copy_(weight[inner:])
    layer.key_value.bias.copy_(bias[inner:])
    block.wo[:], block.bo[:] = dense.proj.weight, _bias(dense.proj)
