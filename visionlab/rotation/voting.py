"""Which cell of rotation space do most lines cross? The rule, its slow twin, and the fast backends.

**The rule** (all backends agree on it bit for bit). A line is ``x0, dx, y0, dy`` in index units
(`lines.lines_from_plane`), float64. For every slab k = 0 .. bins-1 it has one sample::

    fx = x0 + dx * k        # float64, product rounded, then sum rounded: never contracted to an FMA
    fy = y0 + dy * k
    it hits  <=>  0 <= fx < bins and 0 <= fy < bins        (false for NaN)
    ix, iy = floor(fx), floor(fy)
    cell = (ix * bins + iy) * bins + k                     # int64, [x][y][z] order

and adds its weight, an unsigned integer (1 without weights; 0 never votes), to the cell. The winner
is the cell with the largest sum; of equal sums the **lowest flat cell** wins. Without any hit the
winner is cell -1 with 0 votes. The sum of all weights of a frame stays below 2^32.
"""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from visionlab.registry import suggest

Array = NDArray[np.float64]
Weights = NDArray[np.uint32]
Search = Literal["full", "pyramid"]
Backend = Literal["numpy", "numba"]

WEIGHT_LEVELS = 255  # a confidence of 1 is this many votes where confidences are given


class Winner(NamedTuple):
    """The fullest cells of one or several frames."""

    cell: NDArray[np.int64]
    """(...,) flat index ``(ix * bins + iy) * bins + iz``; -1 where no line crosses the box."""
    votes: NDArray[np.int64]
    """(...,) sum of the weights of the lines that cross it."""


def quantise_weights(weights: NDArray[np.floating]) -> Weights:
    """Confidences (..., N) in any non-negative unit as integers 0..255 per frame."""
    top = np.max(weights, axis=-1, keepdims=True, initial=0.0)
    scaled = np.rint(weights * (WEIGHT_LEVELS / np.where(top > 0, top, 1.0)))
    return scaled.astype(np.uint32)


def counter_bytes(bins: int, search: Search) -> int:
    """Memory of the counters that one thread needs."""
    return 4 * (bins // 4 + 1) ** 3 if search == "pyramid" else 4 * bins * bins


def vote_numpy(lines: Array, weights: Weights, *, bins: int) -> tuple[int, int]:
    """The oracle: the rule above as plain NumPy, one slab after the other.

    Args:
        lines: (N, 4) float64.
        weights: (N,) uint32.

    Returns:
        Flat winner cell (-1 without any hit) and its votes.
    """
    best_cell, best_votes = -1, 0
    x0, dx, y0, dy = lines.T
    with np.errstate(invalid="ignore"):
        for k in range(bins):
            fx, fy = x0 + dx * k, y0 + dy * k
            hit = (fx >= 0) & (fx < bins) & (fy >= 0) & (fy < bins) & (weights > 0)
            flat = np.floor(fx[hit]).astype(np.int64) * bins + np.floor(fy[hit]).astype(np.int64)
            slab = np.bincount(flat, weights[hit].astype(np.float64), minlength=bins * bins)
            top = int(np.argmax(slab))
            votes, cell = int(slab[top]), top * bins + k
            if votes > best_votes or (votes == best_votes and votes > 0 and cell < best_cell):
                best_cell, best_votes = cell, votes
    return best_cell, best_votes


def vote(
    lines: Array,
    weights: Weights | None = None,
    *,
    bins: int,
    search: Search = "pyramid",
    backend: Backend = "numba",
    num_threads: int = 1,
) -> Winner:
    """Find the fullest cell of each frame.

    Args:
        lines: (N, 4) or (B, N, 4) float64, see `lines.lines_from_plane`.
        weights: (N,) or (B, N) uint32 votes per line; 0 drops a line. One each without.
        bins: cells per axis, odd.
        search: ``full`` sweeps all slabs; ``pyramid`` finds the same cell by branch and bound.
        backend: ``numba``, or ``numpy`` (the oracle, which always searches fully).
        num_threads: threads over the frames of a batch, or over the slabs of a single frame.

    Raises:
        ValueError: an unknown search or backend, arrays whose shapes do not match.
    """
    stack = np.ascontiguousarray(lines, np.float64)
    if stack.ndim not in (2, 3) or stack.shape[-1] != 4:
        raise ValueError(f"lines must have shape (N, 4) or (B, N, 4), got {stack.shape}")
    single = stack.ndim == 2
    stack = stack[None] if single else stack
    if weights is None:
        counts = np.ones(stack.shape[:2], np.uint32)
    else:
        counts = np.atleast_2d(np.ascontiguousarray(weights, np.uint32))
    if counts.shape != stack.shape[:2]:
        raise ValueError(f"weights of shape {counts.shape} do not fit lines of shape {stack.shape}")
    if search not in ("full", "pyramid"):
        raise ValueError(f"no search '{search}'. {suggest(search, ('full', 'pyramid'))}")
    if backend == "numpy":
        pairs = [vote_numpy(rows, counts[i], bins=bins) for i, rows in enumerate(stack)]
        cells, votes = np.array(pairs, np.int64).reshape(-1, 2).T
    elif backend == "numba":
        from visionlab.rotation import voting_numba

        cells, votes = voting_numba.vote(stack, counts, bins, search, num_threads)
    else:
        raise ValueError(f"no voting backend '{backend}'. {suggest(backend, ('numba', 'numpy'))}")
    return Winner(cells[0], votes[0]) if single else Winner(cells, votes)
