"""Routing in three launches and one cumsum: logits, top-k, gates, and the place of each row.

Sorting by expert is a counting sort: every program counts the experts of its tokens, a cumsum
over (expert, program) gives each its first row, and ranks inside a program are a cumsum over its
tokens. The order is stable, so it equals that of `visionlab.moe.dispatch.make_plan`.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from visionlab.moe.kernels.blocks import TILE, TOKENS, cdiv, chunk, power_of_2


@triton.jit
def _exact_dot(x, w, acc, SPLIT: tl.constexpr):
    """Acc + x @ w.T in float32: bfloat16 x times w in three bfloat16 parts, products exact."""
    if SPLIT:
        high = w.to(tl.bfloat16)
        rest = w - high.to(tl.float32)
        middle = rest.to(tl.bfloat16)
        low = (rest - middle.to(tl.float32)).to(tl.bfloat16)
        acc = tl.dot(x, tl.trans(low), acc)
        acc = tl.dot(x, tl.trans(middle), acc)
        return tl.dot(x, tl.trans(high), acc)
    return tl.dot(x.to(tl.float32), tl.trans(w), acc, input_precision="ieee")


@triton.jit(do_not_specialize=["tokens", "programs"])
def _select(
    x_ptr,
    w_ptr,
    expert_of_column_ptr,
    valid_ptr,
    noise_ptr,
    logits_ptr,
    columns_ptr,
    experts_ptr,
    gates_ptr,
    counts_ptr,
    tokens,
    programs,
    dim,
    num_columns,
    num_experts,
    K: tl.constexpr,
    KP: tl.constexpr,
    CP: tl.constexpr,
    EP: tl.constexpr,
    BT: tl.constexpr,
    BD: tl.constexpr,
    NORMALIZE: tl.constexpr,
    SPLIT: tl.constexpr,
    HAS_VALID: tl.constexpr,
    HAS_NOISE: tl.constexpr,
):
    """Logits, the k best columns, their experts and gates, and how often each expert occurs."""
    program = tl.program_id(0)
    n = program * BT + tl.arange(0, BT)
    live = n < tokens
    c = tl.arange(0, CP)
    real = c < num_columns
    n_row = n.to(tl.int64)[:, None]
    logits = tl.zeros((BT, CP), dtype=tl.float32)
    for start in range(0, dim, BD):
        d = start + tl.arange(0, BD)
        inside = (d < dim)[None, :]
        x = tl.load(x_ptr + n_row * dim + d[None, :], mask=live[:, None] & inside, other=0.0)
        w = tl.load(w_ptr + c[:, None] * dim + d[None, :], mask=real[:, None] & inside, other=0.0)
        logits = _exact_dot(x, w.to(tl.float32), logits, SPLIT)
    cell = n_row * num_columns + c[None, :]
    cell_mask = live[:, None] & real[None, :]
    if HAS_NOISE:
        logits += tl.load(noise_ptr + cell, mask=cell_mask, other=0.0)
    tl.store(logits_ptr + cell, logits, mask=cell_mask)

    expert_of_column = tl.load(expert_of_column_ptr + c, mask=real, other=-1)
    candidates = tl.where((expert_of_column >= 0)[None, :], logits, float("-inf"))
    valid = live
    if HAS_VALID:
        valid = live & (tl.load(valid_ptr + n, mask=live, other=0) != 0)
    j = tl.arange(0, KP)
    best = tl.full((BT, KP), float("-inf"), dtype=tl.float32)
    e = tl.arange(0, EP)
    counts = tl.zeros((EP,), dtype=tl.int32)
    for slot in tl.static_range(K):
        top = tl.max(candidates, axis=1)
        column = tl.argmax(candidates, axis=1)
        hit = c[None, :] == column[:, None]
        candidates = tl.where(hit, float("-inf"), candidates)
        best = tl.where((j == slot)[None, :], top[:, None], best)
        expert = tl.sum(tl.where(hit, expert_of_column[None, :], 0), axis=1)
        expert = tl.where(valid, expert, num_experts)  # padding sorts behind all experts
        counts += tl.sum(((e[None, :] == expert[:, None]) & live[:, None]).to(tl.int32), axis=0)
        tl.store(columns_ptr + n * K + slot, column.to(tl.int32), mask=live)
        tl.store(experts_ptr + n * K + slot, expert, mask=live)
    if NORMALIZE:
        power = tl.exp(best - tl.max(best, axis=1)[:, None])
        gates = power / tl.sum(power, axis=1)[:, None]
    else:
        every = tl.where(real[None, :], logits, float("-inf"))
        peak = tl.max(every, axis=1)[:, None]
        gates = tl.exp(best - peak) / tl.sum(tl.exp(every - peak), axis=1)[:, None]
    gates = tl.where(valid[:, None], gates, 0.0)
    tl.store(gates_ptr + n[:, None] * K + j[None, :], gates, mask=live[:, None] & (j < K)[None, :])
    tl.store(counts_ptr + e * programs + program, counts, mask=e <= num_experts)


@triton.jit(do_not_specialize=["tokens", "programs"])
def _place(
    experts_ptr,
    gates_ptr,
    counts_ptr,
    ends_ptr,
    position_ptr,
    token_ptr,
    row_gate_ptr,
    tokens,
    programs,
    num_experts,
    K: tl.constexpr,
    EP: tl.constexpr,
    BT: tl.constexpr,
):
    """Sorted row of each assignment; token and gate of each sorted row."""
    program = tl.program_id(0)
    n = program * BT + tl.arange(0, BT)
    live = n < tokens
    e = tl.arange(0, EP)
    member = tl.zeros((BT, EP), dtype=tl.int32)
    for slot in tl.static_range(K):
        expert = tl.load(experts_ptr + n * K + slot, mask=live, other=-1)
        member += (e[None, :] == expert[:, None]).to(tl.int32)
    known = e <= num_experts
    cell = e * programs + program
    first = tl.load(ends_ptr + cell, mask=known, other=0) - tl.load(
        counts_ptr + cell, mask=known, other=0
    )
    before = tl.cumsum(member, axis=0) - member + first[None, :]
    same = tl.zeros((BT, EP), dtype=tl.int32)  # padding fills several slots of one bucket
    for slot in tl.static_range(K):
        expert = tl.load(experts_ptr + n * K + slot, mask=live, other=-1)
        hit = e[None, :] == expert[:, None]
        row = tl.sum(tl.where(hit, before + same, 0), axis=1)
        same += hit.to(tl.int32)
        gate = tl.load(gates_ptr + n * K + slot, mask=live, other=0.0)
        tl.store(position_ptr + n * K + slot, row, mask=live)
        tl.store(token_ptr + row, n, mask=live)
        tl.store(row_gate_ptr + row, gate, mask=live)


@triton.jit(do_not_specialize=["programs", "tiles"])
def _map_tiles(
    ends_ptr,
    offsets_ptr,
    tiles_ptr,
    programs,
    tiles,
    num_experts,
    EP: tl.constexpr,
    BT: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Offsets of the experts, and (expert, first row, end row) of each tile; expert -1: none."""
    e = tl.arange(0, EP)
    known = e < num_experts
    # the last expert's rows end where the padding's do: every row belongs to an expert
    bucket = tl.where(e == num_experts - 1, num_experts, e)
    end = tl.load(ends_ptr + bucket * programs + programs - 1, mask=known, other=0)
    begin = tl.load(ends_ptr + e * programs - 1, mask=known & (e > 0), other=0)
    if tl.program_id(0) == 0:
        tl.store(offsets_ptr + e, end, mask=known)
    own = tl.where(known, (end - begin + ROWS - 1) // ROWS, 0)
    upto = tl.cumsum(own, axis=0)
    t = tl.program_id(0) * BT + tl.arange(0, BT)
    expert = tl.sum((upto[None, :] <= t[:, None]).to(tl.int32), axis=1)
    hit = e[None, :] == expert[:, None]
    tile_in_expert = t - tl.sum(tl.where(hit, (upto - own)[None, :], 0), axis=1)
    start = tl.sum(tl.where(hit, begin[None, :], 0), axis=1) + tile_in_expert * ROWS
    stop = tl.sum(tl.where(hit, end[None, :], 0), axis=1)
    used = t < tl.sum(own, axis=0)
    tl.store(tiles_ptr + t * 3, tl.where(used, expert, -1), mask=t < tiles)
    tl.store(tiles_ptr + t * 3 + 1, start, mask=t < tiles)
    tl.store(tiles_ptr + t * 3 + 2, tl.minimum(start + ROWS, stop), mask=t < tiles)


class Routed(NamedTuple):
    """Decisions and places; M = N * k.

    Attributes:
        logits: (N, C) float32.
        columns: (N, k) int32, selected columns of the router.
        experts: (N, k) int32; num_experts where the token is padding.
        gates: (N, k) float32; 0 for padding.
        position: (N, k) int32, sorted row of each assignment.
        token: (M,) int32, token of each sorted row.
        row_gate: (M,) float32.
        offsets: (E,) int32, end row of each expert; the last is M.
        tiles: (T, 3) int32, expert, first row, end row; expert -1 = unused.
    """

    logits: Tensor
    columns: Tensor
    experts: Tensor
    gates: Tensor
    position: Tensor
    token: Tensor
    row_gate: Tensor
    offsets: Tensor
    tiles: Tensor


def route(
    x: Tensor,
    weight: Tensor,
    expert_of_column: Tensor,
    *,
    num_experts: int,
    top_k: int,
    normalize: bool,
    valid: Tensor | None = None,
    noise: Tensor | None = None,
) -> Routed:
    """Choose experts for tokens (N, D) with a router weight (C, D)."""
    (n, dim), columns, device = x.shape, weight.shape[0], x.device
    cp, ep = power_of_2(columns, 16), power_of_2(num_experts + 1, 16)
    block = max(16, min(TOKENS, TOKENS * 32 // max(cp, ep)))  # many experts: fewer tokens at once
    programs, rows = max(cdiv(n, block), 1), n * top_k
    tiles = cdiv(rows, TILE) + num_experts

    def empty(*shape: int, dtype: torch.dtype = torch.int32) -> Tensor:
        return torch.empty(shape, device=device, dtype=dtype)

    logits = empty(n, columns, dtype=torch.float32)
    chosen, experts, position = (empty(n, top_k) for _ in range(3))
    gates, row_gate = empty(n, top_k, dtype=torch.float32), empty(rows, dtype=torch.float32)
    counts, token = empty((num_experts + 1) * programs), empty(rows)
    offsets, tile_map = empty(num_experts), empty(tiles, 3)
    _select[(programs,)](
        x,
        weight,
        expert_of_column.to(torch.int32),
        x if valid is None else valid.to(torch.uint8),
        x if noise is None else noise,
        logits,
        chosen,
        experts,
        gates,
        counts,
        n,
        programs,
        dim,
        columns,
        num_experts,
        K=top_k,
        KP=power_of_2(top_k, 2),
        CP=cp,
        EP=ep,
        BT=block,
        BD=chunk(dim, 64),
        NORMALIZE=normalize,
        SPLIT=x.dtype == torch.bfloat16,
        HAS_VALID=valid is not None,
        HAS_NOISE=noise is not None,
        num_warps=4,
    )
    ends = torch.cumsum(counts, 0, dtype=torch.int32)
    _place[(programs,)](
        *(experts, gates, counts, ends, position, token, row_gate),
        *(n, programs, num_experts),
        K=top_k,
        EP=ep,
        BT=block,
        num_warps=4,
    )
    _map_tiles[(cdiv(tiles, 128),)](
        *(ends, offsets, tile_map, programs, tiles, num_experts),
        EP=ep,
        BT=128,
        ROWS=TILE,
        num_warps=4,
    )
    return Routed(logits, chosen, experts, gates, position, token, row_gate, offsets, tile_map)
