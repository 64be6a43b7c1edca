"""Below the bin size: robust re-weighted least squares on the exact geometry.

The vote gives the basin, this gives the decimals. Residuals are reprojection errors in px; weights
are Geman-McClure's ``(s^2 / (s^2 + r^2))^2`` with a scale s that starts *small*, at two bins: a
wide start drags the answer from the mode into the halo of near points (S3: median .049 instead of
.043 degree). It shrinks to `MODE_SCALE`, then to the noise, by the residuals' median absolute
deviation.
"""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from visionlab.rotation import so3

Array = NDArray[np.float64]

ANNEAL, PASSES = 5, 10  # passes while the scale shrinks, and all of them
START_SCALE = 0.8  # px, or two bins where these are wider
MODE_SCALE = 0.3  # px, where annealing ends; residuals within three of it measure the noise
SCALE_BOUNDS = (0.15, 1.0)  # px, of the measured noise
INLIER_SIGMAS = 3.0
THIN_ABOVE = 3000  # annealing passes see every third of more vectors than these


class Refined(NamedTuple):
    """Result of `refine`."""

    rotvec: Array
    sigma: float
    """Residual scale, px per component."""
    covariance: Array | None
    """(3, 3) rad^2; None where the vectors do not fix the rotation."""
    error: Array
    """(2, N) residuals, px."""

    @property
    def reach(self) -> float:
        """px: shorter residuals are inliers (three sigma, at least three times `MODE_SCALE`)."""
        return INLIER_SIGMAS * max(self.sigma, MODE_SCALE)

    def inliers(self) -> NDArray[np.bool_]:
        """(N,) vectors within `reach`."""
        return self.error[0] ** 2 + self.error[1] ** 2 < self.reach**2


def predict(rotvec: Array, rows: Array) -> Array:
    """(2, N) plane coordinates in frame i+1 of static points, ``q ~ R^T p``."""
    moved = so3.exp(rotvec).T @ np.stack([rows[0], rows[1], np.ones_like(rows[0])])
    return moved[:2] / moved[2]


def irls_numpy(
    rows: Array,
    start: Array,
    *,
    first_scale: float,
    scale: float | None,
) -> Refined:
    """The obvious twin of the numba kernel.

    The scale falls geometrically from ``first_scale`` to ``scale`` (or `MODE_SCALE`) over the first
    five passes. The automatic scale is then 1.4826 times the weighted median of the residual
    components of vectors within three times `MODE_SCALE`, clamped to `SCALE_BOUNDS`.
    """
    target = MODE_SCALE if scale is None else scale
    rotvec, information = np.asarray(start, np.float64), np.zeros((3, 3))
    every, thin = rows, rows[:, ::3] if rows.shape[1] > THIN_ABOVE else rows
    for it in range(PASSES):
        rows = thin if it < ANNEAL else every
        error, jacobian = _linearise(rotvec, rows)
        if it == ANNEAL and scale is None:
            target = float(np.clip(_deviation(error, rows[5], 3 * target), *SCALE_BOUNDS))
        s = first_scale * (target / first_scale) ** (it / (ANNEAL - 1)) if it < ANNEAL else target
        weight = rows[5] * (s * s / (s * s + np.square(error).sum(0))) ** 2
        information = np.einsum("n,cin,cjn->ij", weight, jacobian, jacobian)
        gradient = np.einsum("n,cin,cn->i", weight, jacobian, error)
        if not np.linalg.det(information) > 1e-12 * np.prod(np.diag(information)):
            return Refined(rotvec, target, None, error)
        step = np.linalg.solve(information, gradient)
        rotvec = so3.log(so3.exp(rotvec) @ so3.exp(step))
        if it > ANNEAL and np.abs(step).max() < 1e-8:
            break
    error = residuals(rotvec, every)
    return Refined(
        rotvec, target, np.asarray(target**2 * np.linalg.inv(information), np.float64), error
    )


def _linearise(rotvec: Array, rows: Array) -> tuple[Array, Array]:
    """Residuals (2, N) px and their Jacobian (2, 3, N) px/rad at the predicted points."""
    x, y = predict(rotvec, rows)
    f = rows[4]
    error = f * np.stack([rows[2] - x, rows[3] - y])
    return error, f * np.array([[x * y, -(1 + x * x), y], [1 + y * y, -x * y, -x]])


def residuals(rotvec: Array, rows: Array) -> Array:
    """(2, N) px: observed minus predicted position in frame i+1."""
    return rows[4] * (rows[2:4] - predict(rotvec, rows))


def _deviation(error: Array, weight: Array, reach: float) -> float:
    near = np.square(error).sum(0) < reach * reach
    size = np.abs(error[:, near]).ravel()
    order = np.argsort(size)
    share = np.cumsum(np.tile(weight[near], 2)[order])
    if len(share) == 0:
        return 0.0
    return 1.4826 * float(size[order][np.searchsorted(share, share[-1] / 2)])


def refine(
    rows: Array,
    start: Array,
    *,
    first_scale: float,
    scale: float | None = None,
    backend: Literal["numba", "numpy"] = "numba",
) -> Refined:
    """Refine a camera rotation on correspondences.

    Args:
        rows: (6, N) float64, contiguous and finite: x, y in frame i and u, v in frame i+1 on the
            plane z = 1, the local focal length in px (pixels per unit of the plane), the weight.
        start: (3,) rad, within about a bin of the answer.
        first_scale: px, about the width of the start's error.
        scale: final residual scale in px; from the residuals where it is None.
        backend: ``numba``, or ``numpy`` (the obvious twin).
    """
    if backend == "numpy":
        return irls_numpy(rows, start, first_scale=first_scale, scale=scale)
    from visionlab.rotation import refinement_numba

    rotvec, sigma, covariance, solved, error = refinement_numba.irls(
        rows, np.asarray(start, np.float64), first_scale, scale or 0.0
    )
    return Refined(rotvec, sigma, covariance if solved else None, error)
