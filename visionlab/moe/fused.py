"""Backends ``fused`` and ``triton``: the whole layer from `visionlab.moe.kernels`.

Both route, dispatch, activate, gate and combine in Triton; ``fused`` multiplies with torch's
grouped_mm, ``triton`` with own kernels. The gate multiplies the hidden activation.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from visionlab.moe.router import TaskRouter


def _route(
    x: Tensor, router: TaskRouter, num_experts: int, token_mask: Tensor | None
) -> tuple[Any, ...]:
    from visionlab.moe.kernels import functions

    noise = None
    if router.training and router.noise_std > 0:
        shape = (x.shape[0], router.weight.shape[0])
        noise = torch.randn(shape, device=x.device, dtype=torch.float32) * router.noise_std
    return functions.route_tokens(
        x,
        router.weight,
        expert_of_column=router.expert_of_column,
        num_experts=num_experts,
        top_k=router.top_k,
        normalize=router.normalize,
        valid=token_mask,
        noise=noise,
    )


def mlp(
    x: Tensor,
    router: TaskRouter,
    weights: Sequence[Tensor],
    token_mask: Tensor | None,
    *,
    own: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Tokens (N, D) -> output (N, D), logits (N, C), experts (N, k) int64, gates (N, k).

    Args:
        x: tokens.
        router: of the task.
        weights: w1, b1, w2, b2 of the experts.
        token_mask: (N,) bool, False = padding, or None.
        own: own kernels for the products too.
    """
    from visionlab.moe.kernels import functions as step

    w1, b1, w2, b2 = weights
    rows, row_gate, gates, logits, places = _route(x, router, w1.shape[0], token_mask)
    h = step.product(rows, w1, places, own=own)
    a = step.gated_gelu(h, b1, row_gate, places)
    y = step.combine(step.product(a, w2, places, own=own), gates, b2, places)
    return y, logits, _experts(places, w1.shape[0]), gates


def attention(
    x: Tensor,
    router: TaskRouter,
    weights: Sequence[Tensor],
    token_mask: Tensor | None,
    attend: Callable[[Tensor], Tensor],
    *,
    own: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `mlp`, with ``attend`` between query and output products.

    Args:
        x: tokens (N, D).
        router: of the task.
        weights: Wq, bq, Wo, bo of the experts.
        token_mask: (N,) bool, False = padding, or None.
        attend: queries (N, k, I) -> contexts (N, k, I).
        own: own kernels for the products too.
    """
    from visionlab.moe.kernels import functions as step

    wq, bq, wo, bo = weights
    rows, _, gates, logits, places = _route(x, router, wq.shape[0], token_mask)
    queries = step.to_slots(step.product(rows, wq, places, own=own), bq, places)
    context = step.from_slots(attend(queries), gates, places)
    y = step.combine(step.product(context, wo, places, own=own), gates, bo, places)
    return y, logits, _experts(places, wq.shape[0]), gates


def _experts(places: Any, num_experts: int) -> Tensor:
    """Selected experts (N, k) int64; padding, whose gate is 0, gets the last one."""
    experts: Tensor = places.experts.clamp(max=num_experts - 1).long()
    return experts
