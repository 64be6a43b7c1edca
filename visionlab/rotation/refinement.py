"""Below the bin size: robust re-weighted least squares on the exact geometry.

The vote gives the basin, this gives the decimals. Residuals are reprojection errors in px; weights
are Geman-McClure's ``(s^2 / (s^2 + r^2))^2`` with a scale that shrinks from a bin's width to the
noise, taken from the residuals' median absolute deviation.
"""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from visionlab.rotation import so3

Array = NDArray[np.float64]

PASSES = 10
SCALE_BOUNDS = (0.3, 1.0)
"""px: limits of the automatic scale. Below, the tail of crowds thickens; above, bias by parallax."""
INLIER_SIGMAS = 3.0


class Rows(NamedTuple):
    """Correspondences as contiguous rows."""

    data: Array
    """(6, N) float64: x, y in frame i and u, v in frame i+1 on the plane z = 1, then the local focal
    length in px (pixels per unit of the plane) and the weight."""
    points: Array
    """(N, 2) px, positions in frame i."""


class Refined(NamedTuple):
    """Result of `refine`."""

    rotvec: Array
    sigma: float
    """Residual scale, px per component."""
    covariance: Array | None
    """(3, 3) rad^2; None where the vectors do not fix the rotation."""
    error: Array
    """(2, N) residuals, px."""

    def inliers(self) -> NDArray[np.bool_]:
        """(N,) vectors within three sigma."""
        limit = INLIER_SIGMAS * self.sigma
        return np.square(self.error).sum(0) < limit * limit


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
    bounds: tuple[float, float] = SCALE_BOUNDS,
    passes: int = PASSES,
) -> Refined:
    """The obvious twin of the numba kernel.

    The scale falls geometrically from ``first_scale`` to ``scale`` (to 1 px where it is automatic)
    and stays for the last four passes; the automatic scale is then 1.4826 times the weighted median
    of the residual components of vectors within 3 px, clamped to ``bounds``.
    """
    annealed = passes - 4
    target = 1.0 if scale is None else scale
    rotvec, information = np.asarray(start, np.float64), np.zeros((3, 3))
    for it in range(passes):
        error, jacobian = _linearise(rotvec, rows)
        if it == annealed and scale is None:
            target = float(np.clip(_deviation(error, rows[5], 3 * target), *bounds))
        shrink = min(it / (annealed - 1), 1.0)
        s = first_scale * (target / first_scale) ** shrink if it < annealed else target
        weight = rows[5] * (s * s / (s * s + np.square(error).sum(0))) ** 2
        information = np.einsum("n,cin,cjn->ij", weight, jacobian, jacobian)
        gradient = np.einsum("n,cin,cn->i", weight, jacobian, error)
        if not np.linalg.det(information) > 1e-12 * np.prod(np.diag(information)):
            return Refined(rotvec, target, None, error)
        step = np.linalg.solve(information, gradient)
        rotvec = so3.log(so3.exp(rotvec) @ so3.exp(step))
        if it > annealed and np.abs(step).max() < 1e-8:
            break
    error, _ = _linearise(rotvec, rows)
    return Refined(rotvec, target, target**2 * np.linalg.inv(information), error)


def _linearise(rotvec: Array, rows: Array) -> tuple[Array, Array]:
    """Residuals (2, N) px and their Jacobian (2, 3, N) px/rad at the predicted points."""
    x, y = predict(rotvec, rows)
    f = rows[4]
    error = f * np.stack([rows[2] - x, rows[3] - y])
    return error, f * np.array([[x * y, -(1 + x * x), y], [1 + y * y, -x * y, -x]])


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
    bounds: tuple[float, float] = SCALE_BOUNDS,
    passes: int = PASSES,
    backend: Literal["numba", "numpy"] = "numba",
) -> Refined:
    """Refine a camera rotation on correspondences.

    Args:
        rows: (6, N) float64, finite, see `Rows.data`.
        start: (3,) rad, within about a bin of the answer.
        first_scale: px, about the width of the start's error.
        scale: final residual scale in px; from the residuals where it is None.
        bounds: limits of the automatic scale, px.
        passes: Gauss-Newton passes, at least 6.
        backend: ``numba``, or ``numpy`` (the obvious twin).
    """
    if backend == "numpy":
        return irls_numpy(
            rows, start, first_scale=first_scale, scale=scale, bounds=bounds, passes=passes
        )
    from visionlab.rotation import refinement_numba

    matrix, sigma, information, solved, error = refinement_numba.irls(
        rows, np.asarray(start, np.float64), first_scale, scale or 0.0, bounds, passes
    )
    covariance = sigma**2 * np.linalg.inv(information) if solved else None
    return Refined(so3.log(matrix), sigma, covariance, error)
