"""When is an answer to be trusted? Thresholds, each with the measurement behind it."""

from functools import cache
from math import exp

import numpy as np
from numpy.typing import NDArray

MIN_VECTORS = 30  # below, votes cannot be told from chance
BORDER_BINS = 2  # a peak this close to the border may belong outside
MIN_INLIERS = 0.10  # share of the dense vectors; S2 (65 % movers) keeps .2 and more
AMBIGUOUS_RATIO = 0.8  # second candidate's inliers over the first's
DISTANT_BINS = 5  # candidates nearer than this are one; the second is told, and never takes over
MAX_STD = 0.01  # rad, worst direction: the vectors do not fix the rotation
WIDER = (0.15, 0.35)  # rad: ranges tried after the first, at the same number of bins

# With the inliers of the first candidate set aside, the second has at most 1 - first of them, so
# above this share nothing can be ambiguous and the second look is saved.
CLEAR_SHARE = 1 / (1 + AMBIGUOUS_RATIO)


@cache
def chance_votes(lines: int, bins: int) -> int:
    """Votes that the fullest of all cells reaches by chance, with unrelated lines.

    A line crosses about ``bins`` of ``bins^3`` cells, up to three times denser in the centre; the
    count of a cell is Poisson. Returns the smallest count that fewer than one cell in a thousand
    boxes exceeds.
    """
    mean = 3.0 * lines / bins**2
    cells, count = float(bins) ** 3, 0
    term = exp(-mean)
    tail = 1.0 - term
    while tail * cells > 1e-3 and count < lines:
        count += 1
        term *= mean / count
        tail -= term
        if tail < 1e-12:  # rounding: the rest of the series is its next term
            tail = term * mean / (count + 1)
    return count


def is_loose(covariance: NDArray[np.float64] | None) -> bool:
    """Whether the vectors leave a direction of rotation undetermined (`MAX_STD`)."""
    if covariance is None:
        return True
    limit = MAX_STD**2
    # the trace bounds the largest eigenvalue and is a hundred times cheaper
    return bool(covariance.trace() > limit and np.linalg.eigvalsh(covariance)[-1] > limit)


def near_border(cell: int, bins: int) -> bool:
    """Whether a flat cell lies within two bins of the box's border."""
    index = (cell // bins**2, cell // bins % bins, cell % bins)
    return min(index) < BORDER_BINS or max(index) >= bins - BORDER_BINS
