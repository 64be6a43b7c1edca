"""Moving rows between token order and expert order, without atomics and in fixed order."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from visionlab.moe.kernels.blocks import ROWS, cdiv, chunk


@triton.jit(do_not_specialize=["tokens"])
def _dispatch(
    x_ptr, position_ptr, out_ptr, tokens, dim, K: tl.constexpr, BT: tl.constexpr, BD: tl.constexpr
):
    """out[position[n, j]] = x[n]: a token is read once and written k times."""
    n = tl.program_id(0) * BT + tl.arange(0, BT)
    live = n < tokens
    for start in range(0, dim, BD):
        d = start + tl.arange(0, BD)
        mask = live[:, None] & (d < dim)[None, :]
        x = tl.load(x_ptr + n.to(tl.int64)[:, None] * dim + d[None, :], mask=mask)
        for slot in tl.static_range(K):
            row = tl.load(position_ptr + n * K + slot, mask=live, other=0).to(tl.int64)
            tl.store(out_ptr + row[:, None] * dim + d[None, :], x, mask=mask)


@triton.jit(do_not_specialize=["tokens"])
def _combine(
    rows_ptr,
    position_ptr,
    experts_ptr,
    gates_ptr,
    bias_ptr,
    out_ptr,
    tokens,
    dim,
    num_experts,
    K: tl.constexpr,
    BT: tl.constexpr,
    BD: tl.constexpr,
):
    """out[n] = sum_j rows[position[n, j]] + gate[n, j] * bias[expert[n, j]], slot order."""
    n = tl.program_id(0) * BT + tl.arange(0, BT)
    live = n < tokens
    for start in range(0, dim, BD):
        d = start + tl.arange(0, BD)
        inside = (d < dim)[None, :]
        total = tl.zeros((BT, BD), dtype=tl.float32)
        for slot in tl.static_range(K):
            row = tl.load(position_ptr + n * K + slot, mask=live, other=0).to(tl.int64)
            expert = tl.load(experts_ptr + n * K + slot, mask=live, other=0)
            gate = tl.load(gates_ptr + n * K + slot, mask=live, other=0.0)
            real = (live & (expert < num_experts))[:, None] & inside
            z = tl.load(rows_ptr + row[:, None] * dim + d[None, :], mask=real, other=0.0)
            b = tl.load(bias_ptr + expert[:, None] * dim + d[None, :], mask=real, other=0.0)
            total += z.to(tl.float32) + gate[:, None] * b.to(tl.float32)
        tl.store(
            out_ptr + n.to(tl.int64)[:, None] * dim + d[None, :],
            total.to(out_ptr.dtype.element_ty),
            mask=live[:, None] & inside,
        )


@triton.jit(do_not_specialize=["tokens"])
def _combine_backward(
    grad_ptr,
    position_ptr,
    experts_ptr,
    bias_ptr,
    rows_ptr,
    d_gates_ptr,
    tokens,
    dim,
    num_experts,
    K: tl.constexpr,
    KP: tl.constexpr,
    BT: tl.constexpr,
    BD: tl.constexpr,
):
    """d_rows[position[n, j]] = grad[n]; d_gate[n, j] = grad[n] . bias[expert[n, j]]."""
    n = tl.program_id(0) * BT + tl.arange(0, BT)
    live = n < tokens
    j = tl.arange(0, KP)
    d_gates = tl.zeros((BT, KP), dtype=tl.float32)
    for start in range(0, dim, BD):
        d = start + tl.arange(0, BD)
        mask = live[:, None] & (d < dim)[None, :]
        grad = tl.load(grad_ptr + n.to(tl.int64)[:, None] * dim + d[None, :], mask=mask, other=0.0)
        for slot in tl.static_range(K):
            row = tl.load(position_ptr + n * K + slot, mask=live, other=0).to(tl.int64)
            expert = tl.load(experts_ptr + n * K + slot, mask=live, other=0)
            tl.store(rows_ptr + row[:, None] * dim + d[None, :], grad, mask=mask)
            b = tl.load(
                bias_ptr + expert[:, None] * dim + d[None, :],
                mask=mask & (expert < num_experts)[:, None],
                other=0.0,
            )
            dot = tl.sum(grad.to(tl.float32) * b.to(tl.float32), axis=1)
            d_gates += tl.where((j == slot)[None, :], dot[:, None], 0.0)
    tl.store(
        d_gates_ptr + n[:, None] * K + j[None, :], d_gates, mask=live[:, None] & (j < K)[None, :]
    )


def dispatch(x: Tensor, position: Tensor) -> Tensor:
    """Tokens (N, D) -> sorted rows (M, D)."""
    (n, dim), k = x.shape, position.shape[1]
    out = torch.empty((n * k, dim), device=x.device, dtype=x.dtype)
    _dispatch[(max(cdiv(n, ROWS), 1),)](
        x, position, out, n, dim, K=k, BT=ROWS, BD=chunk(dim), num_warps=4
    )
    return out


def combine(rows: Tensor, position: Tensor, experts: Tensor, gates: Tensor, bias: Tensor) -> Tensor:
    """Sorted, gated rows (M, D) -> token sums (N, D), plus the gated biases (E, D)."""
    (n, k), dim = position.shape, rows.shape[1]
    out = torch.empty((n, dim), device=rows.device, dtype=rows.dtype)
    _combine[(max(cdiv(n, ROWS), 1),)](
        *(rows, position, experts, gates, bias, out, n, dim, bias.shape[0]),
        K=k,
        BT=ROWS,
        BD=chunk(dim),
        num_warps=4,
    )
    return out


def combine_backward(
    grad: Tensor, position: Tensor, experts: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of the rows (M, D) and of the gates through the bias (N, k)."""
    (n, k), dim = position.shape, grad.shape[1]
    rows = torch.empty((n * k, dim), device=grad.device, dtype=grad.dtype)
    d_gates = torch.empty((n, k), device=grad.device, dtype=torch.float32)
    _combine_backward[(max(cdiv(n, ROWS), 1),)](
        *(grad, position, experts, bias, rows, d_gates, n, dim, bias.shape[0]),
        K=k,
        KP=1 << (k - 1).bit_length(),
        BT=ROWS,
        BD=chunk(dim),
        num_warps=4,
    )
    return rows, d_gates
