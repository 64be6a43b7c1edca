"""Rows between expert order and (token, slot) order, for layers that mix tokens in between.

MoE attention needs each token's k query rows side by side, and brings its k context rows back
to the experts with their gates.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from visionlab.moe.kernels.blocks import ROWS, cdiv, chunk


@triton.jit(do_not_specialize=["assignments"])
def _gather(
    rows_ptr,
    position_ptr,
    experts_ptr,
    bias_ptr,
    out_ptr,
    assignments,
    width,
    num_experts,
    BT: tl.constexpr,
    BD: tl.constexpr,
):
    """out[m] = rows[position[m]] + bias[expert[m]]; zeros for padding."""
    m = tl.program_id(0) * BT + tl.arange(0, BT)
    live = m < assignments
    row = tl.load(position_ptr + m, mask=live, other=0).to(tl.int64)
    expert = tl.load(experts_ptr + m, mask=live, other=0)
    real = live & (expert < num_experts)
    for start in range(0, width, BD):
        c = start + tl.arange(0, BD)
        inside = (c < width)[None, :]
        mask = real[:, None] & inside
        value = tl.load(rows_ptr + row[:, None] * width + c[None, :], mask=mask, other=0.0)
        bias = tl.load(bias_ptr + expert[:, None] * width + c[None, :], mask=mask, other=0.0)
        value = value.to(tl.float32) + bias.to(tl.float32)
        tl.store(
            out_ptr + m.to(tl.int64)[:, None] * width + c[None, :],
            value.to(out_ptr.dtype.element_ty),
            mask=live[:, None] & inside,
        )


@triton.jit(do_not_specialize=["assignments"])
def _scatter(
    slots_ptr,
    gates_ptr,
    position_ptr,
    out_ptr,
    assignments,
    width,
    BT: tl.constexpr,
    BD: tl.constexpr,
    GATED: tl.constexpr,
):
    """out[position[m]] = gate[m] * slots[m]."""
    m = tl.program_id(0) * BT + tl.arange(0, BT)
    live = m < assignments
    row = tl.load(position_ptr + m, mask=live, other=0).to(tl.int64)
    for start in range(0, width, BD):
        c = start + tl.arange(0, BD)
        mask = live[:, None] & (c < width)[None, :]
        value = tl.load(slots_ptr + m.to(tl.int64)[:, None] * width + c[None, :], mask=mask)
        if GATED:
            gate = tl.load(gates_ptr + m, mask=live, other=0.0)
            value = (value.to(tl.float32) * gate[:, None]).to(out_ptr.dtype.element_ty)
        tl.store(out_ptr + row[:, None] * width + c[None, :], value, mask=mask)


@triton.jit(do_not_specialize=["assignments"])
def _scatter_backward(
    grad_ptr,
    slots_ptr,
    gates_ptr,
    position_ptr,
    d_slots_ptr,
    d_gates_ptr,
    assignments,
    width,
    BT: tl.constexpr,
    BD: tl.constexpr,
):
    """d_slots[m] = gate[m] * grad[position[m]]; d_gate[m] = slots[m] . grad[position[m]]."""
    m = tl.program_id(0) * BT + tl.arange(0, BT)
    live = m < assignments
    row = tl.load(position_ptr + m, mask=live, other=0).to(tl.int64)
    gate = tl.load(gates_ptr + m, mask=live, other=0.0)
    d_gate = tl.zeros((BT,), dtype=tl.float32)
    for start in range(0, width, BD):
        c = start + tl.arange(0, BD)
        mask = live[:, None] & (c < width)[None, :]
        cell = m.to(tl.int64)[:, None] * width + c[None, :]
        grad = tl.load(grad_ptr + row[:, None] * width + c[None, :], mask=mask, other=0.0)
        grad = grad.to(tl.float32)
        slots = tl.load(slots_ptr + cell, mask=mask, other=0.0).to(tl.float32)
        d_gate += tl.sum(grad * slots, axis=1)
        d_slots = (grad * gate[:, None]).to(d_slots_ptr.dtype.element_ty)
        tl.store(d_slots_ptr + cell, d_slots, mask=mask)
    tl.store(d_gates_ptr + m, d_gate, mask=live)


def gather(rows: Tensor, position: Tensor, experts: Tensor, bias: Tensor) -> Tensor:
    """Sorted rows (M, W) plus their expert's bias (E, W) -> (N, k, W)."""
    m, width = rows.shape
    out = torch.empty((*position.shape, width), device=rows.device, dtype=rows.dtype)
    _gather[(max(cdiv(m, ROWS), 1),)](
        *(rows, position, experts, bias, out, m, width, bias.shape[0]),
        BT=ROWS,
        BD=chunk(width),
        num_warps=4,
    )
    return out


def scatter(slots: Tensor, gates: Tensor | None, position: Tensor) -> Tensor:
    """Slots (N, k, W), times gates (N, k) if given, -> sorted rows (M, W)."""
    m, width = position.numel(), slots.shape[-1]
    out = torch.empty((m, width), device=slots.device, dtype=slots.dtype)
    _scatter[(max(cdiv(m, ROWS), 1),)](
        *(slots, slots if gates is None else gates, position, out, m, width),
        BT=ROWS,
        BD=chunk(width),
        GATED=gates is not None,
        num_warps=4,
    )
    return out


def scatter_backward(
    grad: Tensor, slots: Tensor, gates: Tensor, position: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of slots (N, k, W) and gates (N, k) from that of the rows (M, W)."""
    (m, width), d_slots, d_gates = grad.shape, torch.empty_like(slots), torch.empty_like(gates)
    _scatter_backward[(max(cdiv(m, ROWS), 1),)](
        *(grad, slots, gates, position, d_slots, d_gates, m, width),
        BT=ROWS,
        BD=chunk(width),
        num_warps=4,
    )
    return d_slots, d_gates
