"""Rotation and heading together, by a marginal likelihood over depth.

Rotation alone is biased by parallax. Here a point's residual is split along and across its epipolar
line. Along it, depth is unknown: an exponential prior on inverse depth rho >= 0, convolved with the
noise s, gives the density

    g(al) = lam exp(lam^2 s^2 / 2 - lam al) Phi(al / s - lam s),    lam = 1 / (rho0 |e|) per px,

which holds cheirality, the volume of a one-dimensional constraint, and its smooth change to a
two-dimensional one for far points and near the epipole. A point is near (rate lam), far (20 lam) or
an outlier (heavy tails). EM for the mixture and Gauss-Newton for rotation and heading share passes.

1. Start at the vote's mode, unrefined, from many headings spread over the sphere.
2. The noise s is a schedule down to .8 of the measured noise, never re-estimated on the way; half
   of it in the last passes on all points.
3. Gate: parallax is accepted if the points gain in likelihood over rotation alone on average, *and*
   those that rotation explains gain too, in the mean over image regions without the tenth that
   gains most. A mover taken for near structure makes static points worse, and however many vectors
   it has, it is one coincidence in few regions; parallax is everywhere. (Before regions: S1 96 % of
   flows under .1 degree, with them 98 %; on parallax-free clips nothing is lost any more.)

Where nothing is far, sideways motion and rotation look alike up to second order, and the prior's
mode at rho = 0 turns parallax into rotation. A free minimum of rho as a sixth parameter was tried:
in three-plane rooms it took S3 from .250 to .238 degree only, even started at the truth. The
likelihood does not hold the answer there; other sensors do.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from visionlab.rotation.refinement import Refined

Array = NDArray[np.float64]

HEADINGS = 16
KEEP = (5, 3)  # solutions kept after the first and the second round of starts
NOISE_FACTOR = 0.8
FINAL_FACTOR = (
    0.5  # of the last passes, once parallax is accepted: S3 .022 to .018, S4 .011 to .008
)
NOISE_BOUNDS = (0.15, 0.6)  # px
GATE_ALL, GATE_STATIC = 0.02, 0.0  # mean gain in log-likelihood per point
REGIONS = (8, 5)  # across and down the image
REGIONS_LEFT_OUT = 0.1  # share of the regions, those of the highest gain


class JointFit(NamedTuple):
    """Outcome of `refine_joint`; the gate tells whether it beats rotation alone."""

    accepted: bool
    gate: tuple[float, float]
    """Gain in mean log-likelihood over all points, and over the trimmed regions (step 3)."""
    rotvec: Array
    heading: Array
    """(3,) unit direction of the camera's motion, axes of frame i+1."""
    parallax: float
    """Mean image motion of the near class through translation, px."""
    covariance: Array
    """(3, 3) rad^2 of the rotation, the heading integrated out."""
    sigma: float
    static: Array
    """(N,) probability of each dense point to be static."""


@cache
def fibonacci_sphere(count: int) -> Array:
    """(count, 3) nearly evenly spread unit vectors."""
    k = np.arange(count) + 0.5
    z = 1 - 2 * k / count
    angle = np.pi * (1 + 5**0.5) * k
    radius = np.sqrt(1 - z * z)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), z], -1)


def refine_joint(
    coarse: Array,
    dense: Array,
    mode: Array,
    rival: Refined,
    *,
    heading: Array | None = None,
    headings: int = HEADINGS,
) -> JointFit:
    """Refine rotation and heading from the vote's mode.

    Args:
        coarse: (6, N) rows of the many starts, some hundred points.
        dense: (6, N) rows of the final passes, some thousand points.
        mode: (3,) rad, the vote's mode before any refinement.
        rival: the answer of rotation alone, on ``dense``.
        heading: (3,) a further start, e.g. of the last frame.
        headings: starts over the sphere.
    """
    from visionlab.rotation import joint_numba as kernels
    from visionlab.rotation.refinement_numba import exp_so3, log_so3

    coarse, dense = _unit_mean_weight(coarse), _unit_mean_weight(dense)
    middle = np.ascontiguousarray(dense[:, ::4]) if dense.shape[1] > 2000 else dense
    focal = float(dense[4].mean())
    s1 = float(np.clip(NOISE_FACTOR * rival.sigma, *NOISE_BOUNDS))
    starts = fibonacci_sphere(headings)
    if heading is not None:
        starts = np.concatenate([np.asarray(heading, np.float64)[None], starts])
    matrix, t, state, _ = kernels.search(coarse, middle, mode, starts, focal, s1, KEEP)
    gate = _gate(middle, matrix, t, state, exp_so3(rival.rotvec), s1)
    accepted = gate[0] > GATE_ALL and gate[1] > GATE_STATIC
    sums, total = np.empty(kernels.SUMS), np.empty(dense.shape[1])
    frame, matrix5, static = np.empty((3, 3)), np.empty((5, 5)), np.empty(dense.shape[1])
    if accepted:
        final = float(np.clip(FINAL_FACTOR * rival.sigma, *NOISE_BOUNDS))
        kernels.passes(dense, matrix, t, state, s1, final, 4)
    kernels.across_frame(t, frame)
    kernels.accumulate(dense, matrix, frame, state, s1, sums, total)
    kernels.information(sums, matrix5)
    kernels.static_share(dense, matrix, state, total, static)
    matrix5[np.diag_indices(5)] *= 1 + 1e-9
    reach = np.hypot(dense[0] * t[2] - t[0], dense[1] * t[2] - t[1]) * dense[4]
    return JointFit(
        accepted,
        gate,
        log_so3(matrix),
        t,
        float(state[kernels.RHO] * reach.mean()),
        np.asarray(np.linalg.pinv(matrix5, hermitian=True)[:3, :3], np.float64),
        s1,
        static,
    )


def _unit_mean_weight(rows: Array) -> Array:
    mean = rows[5].mean()
    if mean == 1.0:
        return rows
    rows = rows.copy()
    rows[5] /= mean
    return rows


def _gate(
    rows: Array, matrix: Array, t: Array, state: Array, rival: Array, s1: float
) -> tuple[float, float]:
    """Mean gain of the joint model over rotation alone, each at its own noise."""
    from visionlab.rotation import joint_numba as kernels

    count = rows.shape[1]
    sums, frame, total = np.empty(kernels.SUMS), np.empty((3, 3)), np.empty(count)
    static, alone = np.empty(count), np.empty((2, count))
    kernels.across_frame(t, frame)
    kernels.accumulate(rows, matrix, frame, state, s1, sums, total)
    kernels.static_share(rows, matrix, state, total, static)
    noise = kernels.across_scale(rows, matrix, t, static * rows[5])
    kernels.accumulate(rows, matrix, frame, state, min(max(noise, s1), 1.8 * s1), sums, total)
    own = kernels.fit_rotation_mixture(rows, rival, s1, alone)
    gain = rows[5] * np.log(total / alone[0])
    explained = alone[1] < 9 * own * own
    return float(gain.mean()), regional_gain(rows[:2], gain * explained)


def regional_gain(plane: Array, gain: Array) -> float:
    """Mean over image regions of their mean gain, without the regions that gain most."""
    low, high = plane.min(1, keepdims=True), plane.max(1, keepdims=True)
    size = np.array(REGIONS)[:, None]
    place = (size * (plane - low) / np.maximum(high - low, 1e-12)).astype(int).clip(0, size - 1)
    region = place[0] * REGIONS[1] + place[1]
    counts = np.bincount(region)
    means = np.bincount(region, gain)[counts > 0] / counts[counts > 0]
    kept = len(means) - int(REGIONS_LEFT_OUT * len(means))
    return float(np.sort(means)[:kept].mean())
