"""Backend ``grouped_mm``: torch's grouped matrix product between plain torch operations.

No host synchronisation. Pitfalls of `torch.nn.functional.grouped_mm` handled here: rows after
the last offset stay uninitialised (masked tokens join the last expert with gate 0), an expanded
gradient fails (made contiguous), a bias is refused (added by a one-hot product, whose gradient
needs no atomics).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from visionlab.moe.dispatch import Plan, collect, spread


class _Contiguous(torch.autograd.Function):
    """Identity whose gradient is contiguous, as the backward of grouped_mm needs it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad.contiguous()


def expert_linear(rows: Tensor, weight: Tensor, bias: Tensor, plan: Plan) -> Tensor:
    """Sorted rows (M, I) -> (M, O) by weight (E, O, I) and bias (E, O) of their expert."""
    offsets = _cover_all(plan.offsets, rows.shape[0])
    out = _Contiguous.apply(F.grouped_mm(rows, weight.transpose(-2, -1), offs=offsets))
    row = torch.arange(rows.shape[0], device=rows.device, dtype=torch.int32)
    expert = torch.searchsorted(offsets, row, right=True)
    return out + F.one_hot(expert, weight.shape[0]).to(bias.dtype) @ bias


def _cover_all(offsets: Tensor, rows: int) -> Tensor:
    last = offsets.new_full((1,), rows)
    return torch.cat([offsets[:-1], last])


def expert_mlp(
    x: Tensor, gates: Tensor, plan: Plan, weights: tuple[Tensor, Tensor, Tensor, Tensor]
) -> Tensor:
    """Tokens (N, D) -> gated sum of their experts' MLPs (N, D); weights are (w1, b1, w2, b2)."""
    w1, b1, w2, b2 = weights
    g = row_gates(gates, plan).to(x.dtype)
    a = F.gelu(expert_linear(spread(x, plan), w1, b1, plan))
    return collect(expert_linear(a, w2, b2, plan) * g, plan)


def row_gates(gates: Tensor, plan: Plan) -> Tensor:
    """Gate of each sorted row (M, 1), 0 for masked tokens."""
    from visionlab.moe.dispatch import from_slots

    g = from_slots(gates[..., None], plan)
    return g if plan.valid is None else torch.where(plan.valid, g, 0)
