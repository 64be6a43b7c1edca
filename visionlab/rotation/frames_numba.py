"""Numba kernel of whole frames: gather, lines, vote, refine and second look without the GIL."""
# ruff: noqa: TID253 - this module is numba; `frames` imports it on first use

from typing import Any

import numpy as np
from numba import njit, prange

from visionlab.rotation.lines_numba import lines_from_rows
from visionlab.rotation.refinement import INLIER_SIGMAS, MODE_SCALE
from visionlab.rotation.refinement_numba import exp_so3, irls, residuals
from visionlab.rotation.verdict import CLEAR_SHARE, MIN_VECTORS
from visionlab.rotation.voting_numba import _frame


@njit(cache=True, nogil=True)
def fill_rows(flow: Any, still: Any, top: int, left: int, step: int, scale: Any, rows: Any) -> None:
    """Rows of the vectors at every ``step``-th pixel, as `PixelGrid.gather` for a pinhole."""
    for j in range(rows.shape[0]):
        for i in range(rows.shape[1]):
            rows[j, i] = still[j, i]
    at = 0
    for y in range(top, flow.shape[0], step):
        for x in range(left, flow.shape[1], step):
            rows[2, at] += np.float64(flow[y, x, 0]) * scale[0]
            rows[3, at] += np.float64(flow[y, x, 1]) * scale[1]
            at += 1


@njit(cache=True, nogil=True, fastmath={"reassoc"})  # vectorises, and NaN and inf still show
def total(flow: Any) -> float:
    """Sum of a flow field."""
    out = 0.0
    for y in range(flow.shape[0]):
        row = flow[y].reshape(-1)
        for x in range(row.shape[0]):
            out += row[x]
    return out


@njit(cache=True, nogil=True)
def decode(cell: int, bins: int, bin_size: float, exact: bool) -> Any:
    """Rotation vector at the centre of a cell, as `lines.Grid.rotvec`."""
    half = (bins - 1) // 2
    g = np.empty(3)
    g[0] = (cell // (bins * bins) - half) * bin_size
    g[1] = (cell // bins % bins - half) * bin_size
    g[2] = (cell % bins - half) * bin_size
    norm = np.sqrt((g * g).sum())
    return g * (2.0 * np.arctan(norm / 2.0) / norm) if exact and norm > 0.0 else g


@njit(cache=True, nogil=True)
def at_rest(rows: Any) -> bool:
    """Whether no vector moves."""
    for i in range(rows.shape[1]):
        if rows[2, i] != rows[0, i] or rows[3, i] != rows[1, i]:
            return False
    return True


@njit(cache=True, nogil=True)
def near(error: Any, sigma: float, out: Any) -> float:
    """Mark vectors within reach (`refinement.Refined.reach`) and return their share."""
    reach = INLIER_SIGMAS * max(sigma, MODE_SCALE)
    count = 0
    for i in range(error.shape[1]):
        out[i] = error[0, i] * error[0, i] + error[1, i] * error[1, i] < reach * reach
        count += out[i]
    return count / error.shape[1]


@njit(cache=True, nogil=True)
def settle(
    b: int, rows: Any, dense: Any, bins: int, bin_size: float, options: Any, room: Any, out: Any
) -> None:
    """Frame ``b`` of ``out`` from its vectors: lines, vote, refinement and second look."""
    exact, pyramid, first_scale, sigma_wanted, look_twice = options
    weights, error, others, counters = room
    _, _, cells, votes, rotvecs, sigmas, covariances, solved, ratios, inliers, seconds = out
    lines = lines_from_rows(rows, bin_size, float((bins - 1) // 2), exact)
    weights[:] = 1
    cells[b], votes[b] = _frame(lines, weights, bins, pyramid, counters)
    if votes[b] == 0:
        return
    mode = decode(cells[b], bins, bin_size, exact)
    w, sigmas[b], cov, solved[b], left = irls(dense, mode, first_scale, sigma_wanted)
    for i in range(3):
        rotvecs[b, i] = w[i]
        for j in range(3):
            covariances[b, i, j] = cov[i, j]
    ratios[b] = near(left, sigmas[b], inliers[b])
    if not look_twice or ratios[b] > CLEAR_SHARE:
        return
    residuals(rows, exp_so3(w), error)
    reach = INLIER_SIGMAS * max(sigmas[b], MODE_SCALE)
    count = 0
    for i in range(rows.shape[1]):
        square = error[0, i] * error[0, i] + error[1, i] * error[1, i]
        weights[i] = 1 if square > reach * reach else 0
        count += weights[i]
    if count < MIN_VECTORS:
        return
    cell, many = _frame(lines, weights, bins, pyramid, counters)
    if many > 0:
        mode = decode(cell, bins, bin_size, exact)
        w, sigma, _, _, left = irls(dense, mode, first_scale, sigma_wanted)
        for i in range(3):
            seconds[b, i] = w[i]
        seconds[b, 3] = near(left, sigma, others)


@njit(cache=True, nogil=True)
def solve_share(
    first: int, last: int, flows: Any, grids: Any, bins: int, bin_size: float, options: Any,
    counters: Any, out: Any,
) -> None:  # fmt: skip
    """Frames ``first`` to ``last`` of a batch, one after the other."""
    voting, v_top, v_left, v_step, dense_still, d_top, d_left, d_step, scale = grids
    finite, still, seconds = out[0], out[1], out[10]
    rows, dense = np.empty_like(voting), np.empty_like(dense_still)
    weights, error = np.empty(rows.shape[1], np.uint32), np.empty((2, rows.shape[1]))
    room = weights, error, np.empty(dense.shape[1], np.bool_), counters
    for b in range(first, last):
        finite[b] = np.isfinite(total(flows[b]))
        fill_rows(flows[b], voting, v_top, v_left, v_step, scale, rows)
        fill_rows(flows[b], dense_still, d_top, d_left, d_step, scale, dense)
        still[b] = at_rest(dense)
        seconds[b, 3] = -1.0
        if finite[b] and not still[b]:
            settle(b, rows, dense, bins, bin_size, options, room, out)


@njit(cache=True, parallel=True)
def solve_frames(
    flows: Any, grids: Any, bins: int, bin_size: float, options: Any, scratch: Any, out: Any
) -> None:
    """Fill ``out`` (see `frames.Outcome`) for every frame; frames are shared out to the threads.

    Args:
        flows: (B, H, W, 2).
        grids: rows at rest, top, left and step of the voting and of the dense grid, and 1/f (2,).
        options: exact geometry?, pyramid?, first scale, final scale (0: automatic), second look?
        scratch: (threads, counters), private to each thread.
    """
    count, threads = flows.shape[0], scratch.shape[0]
    for share in prange(threads):  # one call: what stands in a parallel loop compiles slowly
        first, last = share * count // threads, (share + 1) * count // threads
        solve_share(first, last, flows, grids, bins, bin_size, options, scratch[share], out)
