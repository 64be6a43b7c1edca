"""The kernels as differentiable steps: route, multiply, activate, combine.

Every step is one autograd.Function with a hand-written backward. Composed, they are the MoE MLP
(`visionlab.moe.fused`): about 24 launches forward and backward, no host synchronisation.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from visionlab.moe.kernels import activation, grouped_gemm, router_gradient, rows, slots
from visionlab.moe.kernels.routing import Routed, route


class Places(NamedTuple):
    """Where the rows of one routing are; see `Routed`."""

    position: Tensor
    experts: Tensor
    offsets: Tensor
    tiles: Tensor
    token: Tensor


class _Route(torch.autograd.Function):
    """Tokens -> sorted rows, row gates, gates, logits (differentiable), and places."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, options: dict[str, Any]) -> tuple[Tensor, ...]:
        r: Routed = route(x, weight, **options)
        ctx.save_for_backward(x, weight, r.logits, r.position, r.columns, r.gates)
        ctx.normalize = options["normalize"]
        ctx.mark_non_differentiable(r.position, r.experts, r.offsets, r.tiles, r.token)
        spread = rows.dispatch(x, r.position)
        return (
            *(spread, r.row_gate, r.gates, r.logits),
            *(r.position, r.experts, r.offsets, r.tiles, r.token),
        )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, logits, position, columns, gates = ctx.saved_tensors
        d_rows, d_row_gate, d_gates, d_logits = (g.contiguous() for g in grads[:4])
        d_x, d_logits = router_gradient.token_gradient(
            *(d_rows, d_row_gate, d_gates, d_logits),
            logits=logits,
            position=position,
            columns=columns,
            gates=gates,
            weight=weight,
            normalize=ctx.normalize,
        )
        d_weight = router_gradient.tall_product(d_logits, x).to(weight.dtype)
        return d_x, d_weight, None


class _GatedGelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, h: Tensor, bias: Tensor, row_gate: Tensor, tiles: Tensor) -> Tensor:
        ctx.save_for_backward(h, bias, row_gate, tiles)
        return activation.gated_gelu(h, bias, row_gate, tiles)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        h, bias, row_gate, tiles = ctx.saved_tensors
        grads = activation.gated_gelu_backward(grad.contiguous(), h, bias, row_gate, tiles)
        return *grads, None


class _Combine(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        sorted_rows: Tensor,
        gates: Tensor,
        bias: Tensor,
        position: Tensor,
        experts: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(gates, bias, position, experts)
        return rows.combine(sorted_rows, position, experts, gates, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        gates, bias, position, experts = ctx.saved_tensors
        grad = grad.contiguous()
        d_rows, d_gates = rows.combine_backward(grad, position, experts, bias)
        return d_rows, d_gates, _bias_gradient(gates, experts, grad, bias), None, None


def _bias_gradient(weights: Tensor, experts: Tensor, grad: Tensor, bias: Tensor) -> Tensor:
    """d_bias[e] = sum of weights[n, j] * grad[n] over the slots of expert e, no atomics."""
    # weights by expert (N, E + 1): the last column takes the padding
    share = weights.new_zeros(weights.shape[0], bias.shape[0] + 1)
    share.scatter_(1, experts.long(), weights)
    return router_gradient.tall_product(share, grad)[: bias.shape[0]].to(bias.dtype)


class _ToSlots(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, sorted_rows: Tensor, bias: Tensor, position: Tensor, experts: Tensor
    ) -> Tensor:
        ctx.save_for_backward(bias, position, experts)
        return slots.gather(sorted_rows, position, experts, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        bias, position, experts = ctx.saved_tensors
        flat = grad.contiguous().flatten(0, 1)
        ones = torch.ones((flat.shape[0], 1), device=flat.device, dtype=torch.float32)
        d_bias = _bias_gradient(ones, experts.view(-1, 1), flat, bias)
        return slots.scatter(flat, None, position), d_bias, None, None


class _FromSlots(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, gates: Tensor, position: Tensor) -> Tensor:
        ctx.save_for_backward(values, gates, position)
        return slots.scatter(values, gates, position)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        values, gates, position = ctx.saved_tensors
        return *slots.scatter_backward(grad.contiguous(), values, gates, position), None


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, sorted_rows: Tensor, weight: Tensor, offsets: Tensor, tiles: Tensor
    ) -> Tensor:
        ctx.save_for_backward(sorted_rows, weight, offsets, tiles)
        return grouped_gemm.rows_times_weight(sorted_rows, weight, tiles, transposed=True)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        sorted_rows, weight, offsets, tiles = ctx.saved_tensors
        grad = grad.contiguous()
        d_rows = grouped_gemm.rows_times_weight(grad, weight, tiles, transposed=False)
        return d_rows, grouped_gemm.weight_gradient(grad, sorted_rows, offsets), None, None


def route_tokens(
    x: Tensor, weight: Tensor, **options: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor, Places]:
    """Sorted rows (M, D), row gates (M,), gates (N, k), logits (N, C), and the places.

    Args:
        x: (N, D).
        weight: (C, D) of the router.
        **options: keyword arguments of `visionlab.moe.kernels.routing.route`.
    """
    spread, row_gate, gates, logits, *places = _Route.apply(x.contiguous(), weight, options)
    position, experts, offsets, tiles, token = places
    return spread, row_gate, gates, logits, Places(position, experts, offsets, tiles, token)


def product(sorted_rows: Tensor, weight: Tensor, places: Places, *, own: bool) -> Tensor:
    """Rows (M, I) by the weight (E, O, I) of their expert; by torch's grouped_mm or own kernels."""
    if own:
        return _Product.apply(sorted_rows, weight, places.offsets, places.tiles)
    return F.grouped_mm(sorted_rows, weight.transpose(-2, -1), offs=places.offsets)


def gated_gelu(h: Tensor, bias: Tensor, row_gate: Tensor, places: Places) -> Tensor:
    """G * gelu(h + b of the row's expert), (M, H)."""
    return _GatedGelu.apply(h, bias, row_gate, places.tiles)


def combine(sorted_rows: Tensor, gates: Tensor, bias: Tensor, places: Places) -> Tensor:
    """Token sums (N, D) of gated rows, plus the gated biases of their experts."""
    return _Combine.apply(sorted_rows, gates, bias, places.position, places.experts)


def to_slots(sorted_rows: Tensor, bias: Tensor, places: Places) -> Tensor:
    """Rows (M, W) plus the bias of their expert -> (N, k, W)."""
    return _ToSlots.apply(sorted_rows, bias, places.position, places.experts)


def from_slots(values: Tensor, gates: Tensor, places: Places) -> Tensor:
    """Values (N, k, W) times gates (N, k) -> sorted rows (M, W)."""
    return _FromSlots.apply(values.contiguous(), gates, places.position)
