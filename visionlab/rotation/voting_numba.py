"""Numba kernels of the voting rule (`voting`): slab sweep and branch and bound, bit-equal to it.

**Slab sweep** (`full`): one 2-D histogram per slab and a running maximum while incrementing; no 3-D
array and no second pass. The running maximum over (votes, -cell) sees every cell's final count, so
it ends at the winner with the lowest flat index.

**Branch and bound** (`pyramid`). A block is 4x4x4 cells. In one block-slab of four slabs a line's
samples are monotone in k (rounding is monotone, so ``fl(x0 + fl(dx k))`` is), hence lie in the box
spanned by its first and last sample. Adding the line's weight to every block the box touches
gives for each block a bound that is at least the votes of each of its cells. Blocks are opened
by counting their 64 cells under the very same rule, the one of the highest bound first, and then
all whose bound is not below the best count found so far: no other can hold the winner. Blocks whose
bound equals the best count are opened where they hold a lower flat index, since they might tie.
The result is therefore the full search's winner, always.
"""
# ruff: noqa: TID253 - this module is numba; `voting` imports it on first use
# numba unifies the integer types that mypy keeps apart

import sys
from typing import Any

import numpy as np
from numba import config, get_num_threads, njit, prange, set_num_threads
from numpy.typing import NDArray

BLOCK = 4
MAX_THREADS = int(config.NUMBA_NUM_THREADS)  # get_num_threads() would start them on import


@njit(cache=True, nogil=True)
def _compact(lines: Any, weights: Any) -> Any:
    """Lines that can vote, one row per column (4, M) so that loops over them vectorise."""
    kept = np.empty((4, lines.shape[0]))
    votes = np.empty(lines.shape[0], np.uint32)
    count = 0
    for i in range(lines.shape[0]):
        total = lines[i, 0] + lines[i, 1] + lines[i, 2] + lines[i, 3]
        if weights[i] > 0 and np.isfinite(total):
            for j in range(4):
                kept[j, count] = lines[i, j]
            votes[count] = weights[i]
            count += 1
    return kept[:, :count].copy(), votes[:count]


@njit(cache=True, nogil=True)
def _sweep(lines: Any, weights: Any, bins: int, slab: Any, first: int, stride: int) -> Any:
    """Winner over the slabs first, first + stride, ...; ``slab`` holds bins * bins + 1 counters."""
    best_votes, best_cell = np.int64(0), np.int64(-1)
    edge, nowhere = float(bins), np.int32(bins * bins)
    x0, dx, y0, dy = lines[0], lines[1], lines[2], lines[3]
    at = np.empty(len(x0), np.int32)
    for k in range(first, bins, stride):
        slab[:] = 0
        z = float(k)
        for i in range(len(x0)):  # no branch: samples outside the box fall into one spare counter
            fx = x0[i] + dx[i] * z
            fy = y0[i] + dy[i] * z
            inside = (fx >= 0.0) & (fx < edge) & (fy >= 0.0) & (fy < edge)
            cell = np.int32(fx if inside else 0.0) * np.int32(bins) + np.int32(
                fy if inside else 0.0
            )
            at[i] = cell if inside else nowhere
        for i in range(len(x0)):
            here = np.int64(at[i])
            if here == nowhere:
                continue
            votes = np.int64(slab[here]) + np.int64(weights[i])
            slab[here] = votes
            if votes >= best_votes:
                cell = here * bins + k
                if votes > best_votes or cell < best_cell:
                    best_votes, best_cell = votes, cell
    return best_cell, best_votes


@njit(cache=True, nogil=True)
def _boxes(lines: Any, bins: int, kb: int, boxes: Any) -> None:
    """Range of blocks (x first, x last, y first, y last) that each line's samples span."""
    low, high = float(kb * BLOCK), float(min(kb * BLOCK + BLOCK, bins) - 1)
    top = float((bins - 1) // BLOCK)
    for axis in range(2):
        start, slope = lines[2 * axis], lines[2 * axis + 1]
        first, last = boxes[2 * axis], boxes[2 * axis + 1]
        for i in range(len(start)):
            a = start[i] + slope[i] * low
            b = start[i] + slope[i] * high
            # scaling by a power of two is exact; empty where last < first
            first[i] = np.int16(min(max(np.floor(min(a, b) * (1.0 / BLOCK)), 0.0), top + 1.0))
            last[i] = np.int16(max(min(np.floor(max(a, b) * (1.0 / BLOCK)), top), -1.0))


@njit(cache=True, nogil=True)
def _bounds(weights: Any, boxes: Any, blocks: int, bound: Any) -> Any:
    """Add each line to all blocks of its box in one block-slab; returns the top sum and place."""
    best, place = np.int64(0), 0
    for i in range(len(weights)):
        left, right, top, bottom = boxes[0, i], boxes[1, i], boxes[2, i], boxes[3, i]
        if left == right and top == bottom:
            at = np.int64(left) * blocks + np.int64(top)
            votes = np.int64(bound[at]) + np.int64(weights[i])
            bound[at] = votes
            if votes > best:
                best, place = votes, at
            continue
        for ix in range(left, right + 1):
            for iy in range(top, bottom + 1):
                at = ix * blocks + iy
                votes = np.int64(bound[at]) + np.int64(weights[i])
                bound[at] = votes
                if votes > best:
                    best, place = votes, at
    return best, place


@njit(cache=True, nogil=True)
def _open_block(
    lines: Any, weights: Any, bins: int, where: Any, boxes: Any, near: Any, cells: Any
) -> Any:
    """Winner among the cells of one block, counted by the rule."""
    ix, iy, kb = where
    cells[:] = 0
    left, right = float(ix * BLOCK), float(min(ix * BLOCK + BLOCK, bins))
    top, bottom = float(iy * BLOCK), float(min(iy * BLOCK + BLOCK, bins))
    first, last = kb * BLOCK, min(kb * BLOCK + BLOCK, bins)
    best_votes, best_cell = np.int64(0), np.int64(-1)
    x_first, x_last, y_first, y_last = boxes[0], boxes[1], boxes[2], boxes[3]
    for i in range(len(weights)):
        near[i] = (x_first[i] <= ix) & (x_last[i] >= ix) & (y_first[i] <= iy) & (y_last[i] >= iy)
    for i in range(len(weights)):
        if not near[i]:
            continue
        for k in range(first, last):
            fx = lines[0, i] + lines[1, i] * float(k)
            fy = lines[2, i] + lines[3, i] * float(k)
            if fx >= left and fx < right and fy >= top and fy < bottom:
                jx, jy = int(fx), int(fy)
                at = ((jx - ix * BLOCK) * BLOCK + jy - iy * BLOCK) * BLOCK + k - first
                cells[at] += weights[i]
                votes = np.int64(cells[at])
                if votes >= best_votes:
                    cell = (jx * bins + jy) * bins + k
                    if votes > best_votes or cell < best_cell:
                        best_votes, best_cell = votes, cell
    return best_cell, best_votes


@njit(cache=True, nogil=True)
def _branch_and_bound(lines: Any, weights: Any, bins: int, bound: Any) -> Any:
    """Winner of the whole box and the number of opened blocks; ``bound`` has blocks^3 counters."""
    blocks = (bins + BLOCK - 1) // BLOCK
    plane = blocks * blocks
    bound[:] = 0
    boxes = np.empty((blocks, 4, len(weights)), np.int16)
    highest = np.zeros(blocks, np.int64)  # largest bound of each block-slab
    place = np.zeros(blocks, np.int64)
    for kb in range(blocks):
        _boxes(lines, bins, kb, boxes[kb])
        top = _bounds(weights, boxes[kb], blocks, bound[kb * plane : (kb + 1) * plane])
        highest[kb], place[kb] = top
    cells = np.zeros(BLOCK**3, np.uint32)
    near = np.empty(len(weights), np.bool_)
    best_votes, best_cell, opened = np.int64(0), np.int64(-1), 0
    for step in range(blocks + 1):  # the most promising block first: a high mark to beat
        kb = np.argmax(highest) if step == 0 else step - 1
        if highest[kb] == 0 or highest[kb] < best_votes:
            continue
        for at in range(plane) if step > 0 else range(place[kb], place[kb] + 1):
            most = np.int64(bound[kb * plane + at])
            if most == 0 or most < best_votes:
                continue
            ix, iy = at // blocks, at % blocks
            lowest = (ix * BLOCK * bins + iy * BLOCK) * bins + kb * BLOCK
            if most == best_votes and lowest > best_cell:
                continue
            cell, votes = _open_block(lines, weights, bins, (ix, iy, kb), boxes[kb], near, cells)
            bound[kb * plane + at] = 0
            opened += 1
            if votes > best_votes or (votes == best_votes and votes > 0 and cell < best_cell):
                best_cell, best_votes = cell, votes
    return best_cell, best_votes, opened


@njit(cache=True, nogil=True)
def _frame(lines: Any, weights: Any, bins: int, pyramid: bool, scratch: Any) -> Any:
    kept, votes = _compact(lines, weights)
    if pyramid:
        cell, count, _ = _branch_and_bound(kept, votes, bins, scratch)
        return cell, count
    return _sweep(kept, votes, bins, scratch, 0, 1)


@njit(cache=True, parallel=True)
def _batch_parallel(
    lines: Any, weights: Any, bins: int, pyramid: bool, scratch: Any, cells: Any, votes: Any
) -> None:
    """Frames in contiguous shares, one per row of ``scratch``: no two threads share a counter."""
    frames, shares = lines.shape[0], scratch.shape[0]
    for share in prange(shares):
        for b in range(share * frames // shares, (share + 1) * frames // shares):
            cells[b], votes[b] = _frame(lines[b], weights[b], bins, pyramid, scratch[share])


@njit(cache=True, nogil=True)
def _batch_serial(
    lines: Any, weights: Any, bins: int, pyramid: bool, scratch: Any, cells: Any, votes: Any
) -> None:
    for b in range(lines.shape[0]):
        cells[b], votes[b] = _frame(lines[b], weights[b], bins, pyramid, scratch[0])


@njit(cache=True, parallel=True)
def _slabs_parallel(
    lines: Any, weights: Any, bins: int, scratch: Any, cells: Any, votes: Any
) -> None:
    """Slabs of one frame in strides; every thread has its own slab and its own result."""
    kept, counts = _compact(lines, weights)
    for t in prange(scratch.shape[0]):
        cells[t], votes[t] = _sweep(kept, counts, bins, scratch[t], t, scratch.shape[0])


def vote(
    lines: NDArray[np.float64],
    weights: NDArray[np.uint32],
    bins: int,
    search: str,
    num_threads: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Cells and votes (B,) of lines (B, N, 4) with weights (B, N); see `voting.vote`."""
    frames = lines.shape[0]
    pyramid = search == "pyramid"
    # 16-bit counters while no sum can overflow them: half the memory traffic
    heaviest = int(weights.sum(axis=1, dtype=np.int64).max(initial=0))
    counter = np.uint16 if heaviest < 2**16 else np.uint32
    blocks = -(-bins // BLOCK)
    size = blocks**3 if pyramid else bins * bins + 1
    if num_threads > 1 and frames == 1 and not pyramid:
        return _vote_slabs(lines[0], weights[0], bins, np.empty((num_threads, size), counter))
    cells, votes = np.empty(frames, np.int64), np.empty(frames, np.int64)
    shares = max(1, min(num_threads, frames))
    scratch = np.empty((shares, size), counter)
    if shares == 1:
        _batch_serial(lines, weights, bins, pyramid, scratch, cells, votes)
    else:
        with_threads(shares, _batch_parallel, lines, weights, bins, pyramid, scratch, cells, votes)
    return cells, votes


def _vote_slabs(lines: Any, weights: Any, bins: int, scratch: Any) -> Any:
    threads = scratch.shape[0]
    cells, votes = np.empty(threads, np.int64), np.empty(threads, np.int64)
    with_threads(threads, _slabs_parallel, lines, weights, bins, scratch, cells, votes)
    hit = votes > 0
    best = np.lexsort((cells[hit], -votes[hit]))[:1]
    if len(best) == 0:
        return np.array([-1], np.int64), np.array([0], np.int64)
    return cells[hit][best], votes[hit][best]


def with_threads(count: int, kernel: Any, *arguments: Any) -> Any:
    """Call a parallel kernel with at most ``count`` threads and restore numba's setting.

    Torch's, too: when numba starts its threads, it gives their number to all that OpenMP runs.
    """
    torch = sys.modules.get("torch")
    of_torch = torch.get_num_threads() if torch else 0
    before = get_num_threads()
    set_num_threads(min(count, MAX_THREADS))
    try:
        return kernel(*arguments)
    finally:
        set_num_threads(before)
        if torch and torch.get_num_threads() != of_torch:
            torch.set_num_threads(of_torch)
