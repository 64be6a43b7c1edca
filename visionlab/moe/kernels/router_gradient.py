"""Gradients through the gates into logits, tokens and router weight."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from visionlab.moe.kernels.blocks import ROWS, TILE, cdiv, chunk, power_of_2


@triton.jit(do_not_specialize=["tokens"])
def _token_gradient(
    d_rows_ptr,
    d_row_gate_ptr,
    d_gates_ptr,
    d_logits_ptr,
    logits_ptr,
    position_ptr,
    columns_ptr,
    gates_ptr,
    w_ptr,
    out_logits_ptr,
    out_ptr,
    tokens,
    dim,
    num_columns,
    K: tl.constexpr,
    KP: tl.constexpr,
    CP: tl.constexpr,
    BT: tl.constexpr,
    BD: tl.constexpr,
    NORMALIZE: tl.constexpr,
    SPLIT: tl.constexpr,
):
    """Softmax backward -> all d_logits; d_x[n] = sum_j d_rows[position[n, j]] + d_logits[n] @ W."""
    n = tl.program_id(0) * BT + tl.arange(0, BT)
    live = n < tokens
    c = tl.arange(0, CP)
    real = c < num_columns
    j = tl.arange(0, KP)
    slots = n[:, None] * K + j[None, :]
    slot_mask = live[:, None] & (j < K)[None, :]
    row = tl.load(position_ptr + slots, mask=slot_mask, other=0)
    gate = tl.load(gates_ptr + slots, mask=slot_mask, other=0.0)
    d_gate = tl.load(d_gates_ptr + slots, mask=slot_mask, other=0.0)
    d_gate += tl.load(d_row_gate_ptr + row, mask=slot_mask, other=0.0)
    weighted = gate * d_gate
    total = tl.sum(weighted, axis=1)[:, None]
    cell = n.to(tl.int64)[:, None] * num_columns + c[None, :]
    cell_mask = live[:, None] & real[None, :]
    d_logits = tl.load(d_logits_ptr + cell, mask=cell_mask, other=0.0)
    if NORMALIZE:
        d_slot = weighted - gate * total
    else:
        logits = tl.load(logits_ptr + cell, mask=cell_mask, other=float("-inf"))
        logits = tl.where(live[:, None], logits, 0.0)
        power = tl.exp(logits - tl.max(logits, axis=1)[:, None])
        d_logits -= power / tl.sum(power, axis=1)[:, None] * total
        d_slot = weighted
    for slot in tl.static_range(K):
        column = tl.load(columns_ptr + n * K + slot, mask=live, other=-1)
        one = tl.sum(tl.where((j == slot)[None, :], d_slot, 0.0), axis=1)
        d_logits += tl.where(c[None, :] == column[:, None], one[:, None], 0.0)
    tl.store(out_logits_ptr + cell, d_logits, mask=cell_mask)
    for start in range(0, dim, BD):
        d = start + tl.arange(0, BD)
        inside = (d < dim)[None, :]
        w = tl.load(w_ptr + c[:, None] * dim + d[None, :], mask=real[:, None] & inside, other=0.0)
        if SPLIT:  # the result is rounded to bfloat16 anyway
            d_x = tl.dot(d_logits.to(tl.bfloat16), w.to(tl.bfloat16))
        else:
            d_x = tl.dot(d_logits, w.to(tl.float32), input_precision="ieee")
        mask = live[:, None] & inside
        for slot in tl.static_range(K):
            place = tl.load(position_ptr + n * K + slot, mask=live, other=0).to(tl.int64)
            d_row = tl.load(d_rows_ptr + place[:, None] * dim + d[None, :], mask=mask, other=0.0)
            d_x += d_row.to(tl.float32)
        tl.store(
            out_ptr + n.to(tl.int64)[:, None] * dim + d[None, :],
            d_x.to(out_ptr.dtype.element_ty),
            mask=mask,
        )


@triton.jit(do_not_specialize=["tokens", "share"])
def _tall_product(
    left_ptr,
    right_ptr,
    out_ptr,
    tokens,
    share,
    left_width,
    right_width,
    CP: tl.constexpr,
    BT: tl.constexpr,
    BD: tl.constexpr,
    SPLIT: tl.constexpr,
):
    """out[s] = left[slice s].T @ right[slice s]; left is narrow and float32."""
    s = tl.program_id(0)
    c = tl.arange(0, CP)
    d = tl.program_id(1) * BD + tl.arange(0, BD)
    total = tl.zeros((CP, BD), dtype=tl.float32)
    for start in range(0, share, BT):
        n = s * share + start + tl.arange(0, BT)
        live = (n < tokens) & (start + tl.arange(0, BT) < share)
        n_row = n.to(tl.int64)
        left = tl.load(
            left_ptr + n_row[None, :] * left_width + c[:, None],
            mask=(c < left_width)[:, None] & live[None, :],
            other=0.0,
        )
        right = tl.load(
            right_ptr + n_row[:, None] * right_width + d[None, :],
            mask=live[:, None] & (d < right_width)[None, :],
            other=0.0,
        )
        if SPLIT:
            high = left.to(tl.bfloat16)
            total = tl.dot((left - high.to(tl.float32)).to(tl.bfloat16), right, total)
            total = tl.dot(high, right, total)
        else:
            total = tl.dot(left, right.to(tl.float32), total, input_precision="ieee")
    tl.store(
        out_ptr + (s * left_width + c[:, None]) * right_width + d[None, :],
        total,
        mask=(c < left_width)[:, None] & (d < right_width)[None, :],
    )


def token_gradient(
    d_rows: Tensor,
    d_row_gate: Tensor,
    d_gates: Tensor,
    d_logits: Tensor,
    *,
    logits: Tensor,
    position: Tensor,
    columns: Tensor,
    gates: Tensor,
    weight: Tensor,
    normalize: bool,
) -> tuple[Tensor, Tensor]:
    """Gradients of the tokens (N, D) and, all paths joined, of the logits (N, C)."""
    (n, k), dim, width = position.shape, d_rows.shape[1], weight.shape[0]
    out = torch.empty((n, dim), device=d_rows.device, dtype=d_rows.dtype)
    out_logits = torch.empty_like(logits)
    _token_gradient[(max(cdiv(n, ROWS), 1),)](
        *(d_rows, d_row_gate, d_gates, d_logits, logits, position, columns, gates, weight),
        *(out_logits, out, n, dim, width),
        K=k,
        KP=power_of_2(k, 2),
        CP=power_of_2(width, 16),
        BT=ROWS,
        BD=chunk(dim, 128),
        NORMALIZE=normalize,
        SPLIT=d_rows.dtype == torch.bfloat16,
        num_warps=4,
    )
    return out, out_logits


def tall_product(left: Tensor, right: Tensor) -> Tensor:
    """Left (N, C) float32, transposed, times right (N, D): (C, D) float32, fixed order."""
    (n, c), dim = left.shape, right.shape[1]
    width = chunk(dim, 128)
    slices = max(1, min(cdiv(n, 4 * TILE), 64))
    part = torch.empty((slices, c, dim), device=left.device, dtype=torch.float32)
    _tall_product[(slices, cdiv(dim, width))](
        *(left, right, part, n, cdiv(n, slices), c, dim),
        CP=power_of_2(c, 16),
        BT=32,
        BD=width,
        SPLIT=right.dtype == torch.bfloat16,
        num_warps=4,
    )
    return part.sum(0)
