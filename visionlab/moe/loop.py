"""Backend ``loop``: one matmul per expert into preallocated rows. Any dtype; default on a CPU.

Each expert's rows are gathered, multiplied and activated while they are in cache. The layer
above calls `expert_mlp` and `expert_linear`; both have hand-written backward passes, checked by
gradcheck in float64.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from visionlab.moe.dispatch import Plan, sum_slots

_gelu_backward = torch.ops.aten.gelu_backward.default


class _ExpertMLP(torch.autograd.Function):
    """y[n] = sum_j g[n, j] * (W2_e gelu(W1_e x[n] + b1_e) + b2_e), e = expert of slot (n, j)."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        gates: Tensor,
        w1: Tensor,
        b1: Tensor,
        w2: Tensor,
        b2: Tensor,
        order: Tensor,
        position: Tensor,
        ends: list[int],
    ) -> Tensor:
        token = order // position.shape[1]
        rows, hidden = order.numel(), w1.shape[1]
        h, a = x.new_empty(rows, hidden), x.new_empty(rows, hidden)
        z = x.new_empty(rows, w2.shape[1])
        z[ends[-1] :] = 0  # masked tokens
        start = 0
        for end, m1, c1, m2, c2 in zip(ends, *(t.unbind() for t in (w1, b1, w2, b2))):
            if end > start:
                x_e = x.index_select(0, token[start:end])
                torch.addmm(c1, x_e, m1.t(), out=h[start:end])
                torch.ops.aten.gelu.out(h[start:end], out=a[start:end])
                torch.addmm(c2, a[start:end], m2.t(), out=z[start:end])
            start = end
        ctx.save_for_backward(x, gates, w1, w2, token, order, position, h, a, z)
        ctx.ends = ends
        return sum_slots(z, position, gates.to(z.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, gates, w1, w2, token, order, position, h, a, z = ctx.saved_tensors
        grad, ends = grad.contiguous(), ctx.ends
        g = gates.reshape(-1).to(x.dtype)[order][:, None]
        dw1, dw2 = torch.empty_like(w1), torch.empty_like(w2)
        db1, db2 = x.new_empty(w1.shape[:2]), x.new_empty(w2.shape[:2])
        dg, dx_rows = x.new_zeros(order.numel()), x.new_empty(order.numel(), x.shape[1])
        dx_rows[ends[-1] :] = 0
        start = 0
        for e, end in enumerate(ends):
            s = slice(start, end)
            dy = grad.index_select(0, token[s])
            dg[s] = torch.linalg.vecdot(dy, z[s])
            dy.mul_(g[s])
            torch.mm(dy.t(), a[s], out=dw2[e])
            torch.sum(dy, 0, out=db2[e])
            dh = _gelu_backward(dy @ w2[e], h[s])
            torch.mm(dh.t(), x.index_select(0, token[s]), out=dw1[e])
            torch.sum(dh, 0, out=db1[e])
            torch.mm(dh, w1[e], out=dx_rows[s])
            start = end
        dgates = dg[position.reshape(-1)].view_as(gates).to(gates.dtype)
        return sum_slots(dx_rows, position), dgates, dw1, db1, dw2, db2, None, None, None


class _ExpertLinear(torch.autograd.Function):
    """Sorted rows (M, I) -> (M, O), row r by the weight of its expert."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, w: Tensor, b: Tensor, ends: list[int]) -> Tensor:
        out = rows.new_empty(rows.shape[0], w.shape[1])
        out[ends[-1] :] = 0
        start = 0
        for e, end in enumerate(ends):
            torch.addmm(b[e], rows[start:end], w[e].t(), out=out[start:end])
            start = end
        ctx.save_for_backward(rows, w)
        ctx.ends = ends
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, w = ctx.saved_tensors
        grad, start = grad.contiguous(), 0
        d_rows, dw, db = torch.empty_like(rows), torch.empty_like(w), w.new_empty(w.shape[:2])
        d_rows[ctx.ends[-1] :] = 0
        for e, end in enumerate(ctx.ends):
            s = slice(start, end)
            torch.mm(grad[s], w[e], out=d_rows[s])
            torch.mm(grad[s].t(), rows[s], out=dw[e])
            torch.sum(grad[s], 0, out=db[e])
            start = end
        return d_rows, dw, db, None


def expert_mlp(
    x: Tensor, gates: Tensor, plan: Plan, weights: tuple[Tensor, Tensor, Tensor, Tensor]
) -> Tensor:
    """Tokens (N, D) -> gated sum of their experts' MLPs (N, D); weights are (w1, b1, w2, b2)."""
    return _ExpertMLP.apply(x, gates, *weights, plan.order, plan.position, plan.ends())


def expert_linear(rows: Tensor, weight: Tensor, bias: Tensor, plan: Plan) -> Tensor:
    """Sorted rows (M, I) -> (M, O) by weight (E, O, I) and bias (E, O) of their expert."""
    return _ExpertLinear.apply(rows, weight, bias, plan.ends())
