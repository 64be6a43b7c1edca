"""Bias, GELU and gate of the hidden rows in one pass, forward and backward.

a = g * gelu(h + b). With the gate here, the combine is a plain sum, the second product's output
is not needed in the backward, and the gate's gradient falls out of the GELU backward.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from visionlab.moe.kernels.blocks import TILE, cdiv, chunk


@triton.jit
def _normal(h):
    """Phi(h), phi(h); both as in torch's exact GELU."""
    upper = 0.5 * (1.0 + tl.erf(h * 0.7071067811865476))
    return upper, 0.3989422804014327 * tl.exp(-0.5 * h * h)


@triton.jit
def _gelu_forward(
    h_ptr,
    bias_ptr,
    gate_ptr,
    tiles_ptr,
    out_ptr,
    width,
    BM: tl.constexpr,
    BC: tl.constexpr,
):
    tile = tl.program_id(0)
    expert = tl.load(tiles_ptr + tile * 3)
    if expert >= 0:
        rows = tl.load(tiles_ptr + tile * 3 + 1) + tl.arange(0, BM)
        live = rows < tl.load(tiles_ptr + tile * 3 + 2)
        c = tl.program_id(1) * BC + tl.arange(0, BC)
        mask = live[:, None] & (c < width)[None, :]
        cell = rows.to(tl.int64)[:, None] * width + c[None, :]
        bias = tl.load(bias_ptr + expert * width + c, mask=c < width, other=0.0).to(tl.float32)
        h = tl.load(h_ptr + cell, mask=mask, other=0.0).to(tl.float32) + bias[None, :]
        gate = tl.load(gate_ptr + rows, mask=live, other=0.0)
        upper, _ = _normal(h)
        a = gate[:, None] * h * upper
        tl.store(out_ptr + cell, a.to(out_ptr.dtype.element_ty), mask=mask)


@triton.jit
def _gelu_backward(
    grad_ptr,
    h_ptr,
    bias_ptr,
    gate_ptr,
    tiles_ptr,
    out_ptr,
    d_gate_ptr,
    d_bias_ptr,
    width,
    BM: tl.constexpr,
    BC: tl.constexpr,
):
    """d_h = g * d_a * gelu'; d_g[row] = sum d_a * gelu; d_b[tile] = sum over rows of d_h."""
    tile = tl.program_id(0)
    expert = tl.load(tiles_ptr + tile * 3)
    if expert >= 0:
        rows = tl.load(tiles_ptr + tile * 3 + 1) + tl.arange(0, BM)
        live = rows < tl.load(tiles_ptr + tile * 3 + 2)
        gate = tl.load(gate_ptr + rows, mask=live, other=0.0)
        d_gate = tl.zeros((BM,), dtype=tl.float32)
        for start in range(0, width, BC):
            c = start + tl.arange(0, BC)
            inside = c < width
            mask = live[:, None] & inside[None, :]
            cell = rows.to(tl.int64)[:, None] * width + c[None, :]
            bias = tl.load(bias_ptr + expert * width + c, mask=inside, other=0.0).to(tl.float32)
            h = tl.load(h_ptr + cell, mask=mask, other=0.0).to(tl.float32) + bias[None, :]
            grad = tl.load(grad_ptr + cell, mask=mask, other=0.0).to(tl.float32)
            upper, density = _normal(h)
            d_gate += tl.sum(grad * h * upper, axis=1)
            d_h = gate[:, None] * grad * (upper + h * density)
            tl.store(out_ptr + cell, d_h.to(out_ptr.dtype.element_ty), mask=mask)
            tl.store(d_bias_ptr + tile * width + c, tl.sum(d_h, axis=0), mask=inside)
        tl.store(d_gate_ptr + rows, d_gate, mask=live)


@triton.jit(do_not_specialize=["tiles"])
def _sum_tiles(
    part_ptr,
    tiles_ptr,
    out_ptr,
    tiles,
    width,
    BT: tl.constexpr,
    BC: tl.constexpr,
):
    """out[e] = sum of the parts of the tiles of expert e, in tile order."""
    expert = tl.program_id(0)
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    total = tl.zeros((BC,), dtype=tl.float32)
    for start in range(0, tiles, BT):
        t = start + tl.arange(0, BT)
        owner = tl.load(tiles_ptr + t * 3, mask=t < tiles, other=-1)
        mask = (owner == expert)[:, None] & (c < width)[None, :]
        part = tl.load(
            part_ptr + t.to(tl.int64)[:, None] * width + c[None, :], mask=mask, other=0.0
        )
        total += tl.sum(part, axis=0)
    tl.store(out_ptr + expert * width + c, total.to(out_ptr.dtype.element_ty), mask=c < width)


def gated_gelu(h: Tensor, bias: Tensor, row_gate: Tensor, tiles: Tensor) -> Tensor:
    """Rows (M, H) without bias -> g * gelu(h + b), (M, H)."""
    width, out = h.shape[1], torch.empty_like(h)
    columns = chunk(width, 64)
    _gelu_forward[(tiles.shape[0], cdiv(width, columns))](
        h, bias, row_gate, tiles, out, width, BM=TILE, BC=columns, num_warps=4
    )
    return out


def gated_gelu_backward(
    grad: Tensor, h: Tensor, bias: Tensor, row_gate: Tensor, tiles: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of h (M, H), bias (E, H) and row gates (M,)."""
    width, count = h.shape[1], tiles.shape[0]
    d_h, d_gate = torch.empty_like(h), torch.empty_like(row_gate)
    part = torch.empty((count, width), device=h.device, dtype=torch.float32)
    _gelu_backward[(count,)](
        *(grad, h, bias, row_gate, tiles, d_h, d_gate, part, width),
        BM=TILE,
        BC=chunk(width, 64),
        num_warps=8,
    )
    d_bias, columns = torch.empty_like(bias), chunk(width, 64)
    _sum_tiles[(bias.shape[0], cdiv(width, columns))](
        part, tiles, d_bias, count, width, BT=32, BC=columns, num_warps=4
    )
    return d_h, d_bias, d_gate
