"""Grouped matrix products: rows by the weight of their expert, and the weights' gradients."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from visionlab.moe.kernels.blocks import INTERPRETED, TILE, cdiv


@triton.jit
def _rows_times_weight(
    rows_ptr,
    weight_ptr,
    tiles_ptr,
    out_ptr,
    inner,
    outer,
    TRANSPOSED: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
):
    """out[r] = rows[r] @ W[e].T with W (E, outer, inner) if TRANSPOSED, else W (E, inner, outer).

    Columns run fastest over the grid: the rows and one expert's weight stay in L2.
    """
    columns = tl.cdiv(outer, BN)
    tile = tl.program_id(0) // columns
    expert = tl.load(tiles_ptr + tile * 3)
    if expert >= 0:
        first, end = tl.load(tiles_ptr + tile * 3 + 1), tl.load(tiles_ptr + tile * 3 + 2)
        rows = first + tl.arange(0, BM)
        inside = tl.minimum(rows, end - 1).to(tl.int64)  # clamped: rows past the end are not kept
        c = (tl.program_id(0) % columns) * BN + tl.arange(0, BN)
        base = weight_ptr + expert.to(tl.int64) * inner * outer
        total = tl.zeros((BM, BN), dtype=tl.float32)
        for start in range(0, inner, BK):
            k = start + tl.arange(0, BK)
            a = tl.load(
                rows_ptr + inside[:, None] * inner + k[None, :],
                mask=(k < inner)[None, :],
                other=0.0,
            )
            cells = (
                c[None, :] * inner + k[:, None] if TRANSPOSED else k[:, None] * outer + c[None, :]
            )
            b = tl.load(base + cells, mask=(k < inner)[:, None] & (c < outer)[None, :], other=0.0)
            total = tl.dot(a, b, total, input_precision="ieee")
        tl.store(
            out_ptr + rows.to(tl.int64)[:, None] * outer + c[None, :],
            total.to(out_ptr.dtype.element_ty),
            mask=(rows < end)[:, None] & (c < outer)[None, :],
        )


@triton.jit
def _weight_gradient(
    left_ptr,
    right_ptr,
    offsets_ptr,
    out_ptr,
    left_width,
    right_width,
    BI: tl.constexpr,
    BJ: tl.constexpr,
    BK: tl.constexpr,
):
    """out[e] = left[rows of e].T @ right[rows of e]; zeros for an expert without rows."""
    columns = tl.cdiv(right_width, BJ)
    i = (tl.program_id(0) // columns) * BI + tl.arange(0, BI)
    j = (tl.program_id(0) % columns) * BJ + tl.arange(0, BJ)
    expert = tl.program_id(1)
    begin = tl.load(offsets_ptr + expert - 1, mask=expert > 0, other=0)
    end = tl.load(offsets_ptr + expert)
    total = tl.zeros((BI, BJ), dtype=tl.float32)
    for start in range(begin, end, BK):
        r = (start + tl.arange(0, BK)).to(tl.int64)
        live = (r < end)[:, None]
        a = tl.load(
            left_ptr + r[:, None] * left_width + i[None, :],
            mask=live & (i < left_width)[None, :],
            other=0.0,
        )
        b = tl.load(
            right_ptr + r[:, None] * right_width + j[None, :],
            mask=live & (j < right_width)[None, :],
            other=0.0,
        )
        total = tl.dot(tl.trans(a), b, total, input_precision="ieee")
    tl.store(
        out_ptr + expert.to(tl.int64) * left_width * right_width + i[:, None] * right_width + j,
        total.to(out_ptr.dtype.element_ty),
        mask=(i < left_width)[:, None] & (j < right_width)[None, :],
    )


def _blocks(dtype: torch.dtype) -> dict[str, int]:
    """Columns, depth and warps of a product: float32 has no tensor cores at full precision."""
    if INTERPRETED:
        return {"wide": 32, "deep": 16, "num_warps": 4, "num_stages": 2}
    if dtype == torch.float32:
        return {"wide": 64, "deep": 32, "num_warps": 8, "num_stages": 2}
    return {"wide": 128, "deep": 64, "num_warps": 8, "num_stages": 3}


def rows_times_weight(rows: Tensor, weight: Tensor, tiles: Tensor, *, transposed: bool) -> Tensor:
    """Rows (M, I) times W (E, O, I) transposed, or times W (E, I, O): (M, O)."""
    inner = rows.shape[1]
    outer = weight.shape[1] if transposed else weight.shape[2]
    out = torch.empty((rows.shape[0], outer), device=rows.device, dtype=rows.dtype)
    b = _blocks(rows.dtype)
    _rows_times_weight[(tiles.shape[0] * cdiv(outer, b["wide"]),)](
        *(rows, weight, tiles, out, inner, outer),
        TRANSPOSED=transposed,
        BM=TILE,
        BN=b["wide"],
        BK=b["deep"],
        num_warps=b["num_warps"],
        num_stages=b["num_stages"],
    )
    return out


def weight_gradient(left: Tensor, right: Tensor, offsets: Tensor) -> Tensor:
    """Per expert left.T @ right over its rows: (E, I, J)."""
    i, j, experts = left.shape[1], right.shape[1], offsets.shape[0]
    out = torch.empty((experts, i, j), device=left.device, dtype=left.dtype)
    b = _blocks(left.dtype)
    _weight_gradient[(cdiv(i, b["wide"]) * cdiv(j, b["wide"]), experts)](
        *(left, right, offsets, out, i, j),
        BI=b["wide"],
        BJ=b["wide"],
        BK=b["deep"],
        num_warps=b["num_warps"],
        num_stages=b["num_stages"],
    )
    return out
