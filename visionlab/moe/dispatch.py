"""Sorting tokens by expert and bringing them back, in plain torch and without atomics.

Assignments are numbered n * k + j (token n, slot j). A `Plan` holds them sorted by expert; the
sums over a token's k rows always run in slot order, so results are deterministic and do not
depend on which other experts exist. No size is read back from the device.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


@dataclass(frozen=True)
class Plan:
    """Where each assignment goes; M = N * k rows, nothing is dropped.

    Attributes:
        order: (M,) int64, assignment of each sorted row.
        position: (N, k) int64, sorted row of each assignment.
        offsets: (E,) int32, end row of each expert. Rows of masked tokens come last.
        valid: (M, 1) bool, rows that belong to an expert; None = all.
    """

    order: Tensor
    position: Tensor
    offsets: Tensor
    valid: Tensor | None

    @property
    def top_k(self) -> int:
        """Rows per token."""
        return self.position.shape[1]

    def ends(self) -> list[int]:
        """Offsets on the host (synchronises on CUDA; for the loop backend)."""
        ends: list[int] = self.offsets.tolist()
        return ends


def make_plan(experts: Tensor, num_experts: int, token_mask: Tensor | None = None) -> Plan:
    """Sort assignments by expert.

    Args:
        experts: (N, k) int64.
        num_experts: E.
        token_mask: (N,) bool; tokens that are False go to no expert.
    """
    if token_mask is not None:
        experts = experts.masked_fill(~token_mask[:, None], num_experts)
    ranked, order = experts.flatten().sort(stable=True)
    position = torch.empty_like(order)
    position.scatter_(0, order, torch.arange(order.numel(), device=order.device))
    bounds = torch.arange(num_experts, device=order.device)
    offsets = torch.searchsorted(ranked, bounds, right=True, out_int32=True)
    valid = None if token_mask is None else (ranked < num_experts)[:, None]
    return Plan(order, position.view_as(experts), offsets, valid)


def sum_slots(rows: Tensor, position: Tensor, weights: Tensor | None = None) -> Tensor:
    """y[n] = sum_j weights[n, j] * rows[position[n, j]], (N, D), in slot order."""
    if rows.device.type == "cpu" and rows.dtype in (torch.float32, torch.float64):
        # one pass without the (N, k, D) intermediate
        starts = torch.arange(0, position.numel(), position.shape[1])
        flat = None if weights is None else weights.reshape(-1)
        out: Tensor = torch.embedding_bag(
            rows, position.reshape(-1), starts, mode=0, per_sample_weights=flat
        )[0]
        return out
    picked = rows[position]
    if weights is not None:
        picked = picked * weights[..., None]
    return picked.sum(1)


class _Spread(torch.autograd.Function):
    """x (N, D) -> sorted rows (M, D); the gradient sums a token's rows in slot order."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, position: Tensor) -> Tensor:
        ctx.save_for_backward(position)
        return x.index_select(0, order // position.shape[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (position,) = ctx.saved_tensors
        return sum_slots(grad.contiguous(), position), None, None


class _Collect(torch.autograd.Function):
    """Sorted rows (M, D) -> sums over a token's rows (N, D)."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, order: Tensor, position: Tensor) -> Tensor:
        ctx.save_for_backward(order)
        ctx.top_k = position.shape[1]
        return sum_slots(rows, position)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (order,) = ctx.saved_tensors
        return grad.contiguous().index_select(0, order // ctx.top_k), None, None


class _Permute(torch.autograd.Function):
    """rows[index] for a permutation; the gradient is the inverse permutation, no atomics."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, index: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(inverse)
        return rows.index_select(0, index)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (inverse,) = ctx.saved_tensors
        return grad.contiguous().index_select(0, inverse), None, None


def spread(x: Tensor, plan: Plan) -> Tensor:
    """Tokens (N, D) -> one row per assignment, sorted by expert (M, D)."""
    return _Spread.apply(x, plan.order, plan.position)


def collect(rows: Tensor, plan: Plan) -> Tensor:
    """Sorted rows (M, D) -> token sums (N, D)."""
    return _Collect.apply(rows, plan.order, plan.position)


def to_slots(rows: Tensor, plan: Plan) -> Tensor:
    """Sorted rows (M, D) -> (N, k, D), slot order."""
    flat: Tensor = _Permute.apply(rows, plan.position.reshape(-1), plan.order)
    return flat.view(*plan.position.shape, rows.shape[-1])


def from_slots(slots: Tensor, plan: Plan) -> Tensor:
    """(N, k, D) -> sorted rows (M, D)."""
    return _Permute.apply(slots.flatten(0, 1), plan.order, plan.position.reshape(-1))


def zero_unrouted(rows: Tensor, plan: Plan) -> Tensor:
    """Zeros in the rows of masked tokens (not a product: such rows may hold anything)."""
    return rows if plan.valid is None else torch.where(plan.valid, rows, 0)
