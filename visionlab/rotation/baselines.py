"""What else estimates a rotation from the same correspondences, behind one interface.

``baseline(points0, points1, camera) -> rotvec`` takes (N, 2) px in both frames and returns the
camera's rotation (3,) in rad, in this package's convention. Methods that also estimate a
translation return their rotation. Random ones take a seed. `published` needs its voting grid and
is the specification of the published rule, votes and all; its time is what ours is compared with.
"""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from visionlab.registry import Registry
from visionlab.rotation import so3
from visionlab.rotation.camera import Camera
from visionlab.rotation.inputs import stack_rows
from visionlab.rotation.refinement import residuals

Array = NDArray[np.float64]


class Baseline(Protocol):
    """The interface of every rival."""

    def __call__(self, points0: Array, points1: Array, camera: Camera) -> Array:
        """Camera rotation (3,) rad from tracks (N, 2) px."""


BASELINES = Registry(
    "baseline",
    {
        name: f"visionlab.rotation.baselines:{name}"
        for name in (
            "zero",
            "published",
            "least_squares",
            "huber",
            "two_point",
            "essential_ransac",
            "essential_magsac",
            "homography",
            "poselib",
        )
    },
)


def installed() -> list[str]:
    """Names of the baselines that can run here; PoseLib is optional (``pip install poselib``)."""
    return [n for n in BASELINES.names() if n != "poselib" or find_spec("poselib") is not None]


def baseline(name: str) -> Baseline:
    """The baseline of that name.

    Raises:
        ValueError: no such name.
    """
    return BASELINES.get(name)


def zero(points0: Array, points1: Array, camera: Camera) -> Array:
    """No rotation at all: what a tiny error has to be compared with."""
    return np.zeros(3)


def published(
    points0: Array,
    points1: Array,
    camera: Camera,
    *,
    bin_size: float = 1e-3,
    max_angle: float = 0.07,
) -> Array:
    """The published rule: sample every linear line at all bin centres, materialise all votes, mode.

    Ties go to the lowest flat index in [x][y][z] order; without votes the answer is zero. The
    published grid is every 15th pixel from pixel 0 (`published_points`).
    """
    pixels = np.asarray(points0) - (camera.cx, camera.cy)
    flow = np.asarray(points1) - np.asarray(points0)
    x, y, u, v = pixels[:, 0], pixels[:, 1], flow[:, 0], flow[:, 1]
    f = camera.focal
    scale = f * (f * f + x * x + y * y)
    a = (f * f * v - u * x * y + v * x * x) / scale
    b = -(f * f * u + u * y * y - v * x * y) / scale
    half = round(max_angle / bin_size)
    bins = 2 * half + 1
    z = np.arange(-half, half + 1) * bin_size
    samples = np.stack(
        [
            a[:, None] + z * (x / f)[:, None],
            b[:, None] + z * (y / f)[:, None],
            np.broadcast_to(z, (len(x), bins)),
        ],
        -1,
    ).reshape(-1, 3)
    index = np.floor((samples + (half * bin_size + bin_size / 2)) / bin_size).astype(np.int64)
    index = index[((index >= 0) & (index < bins)).all(1)]
    if len(index) == 0:
        return np.zeros(3)
    cells, votes = np.unique(
        (index[:, 0] * bins + index[:, 1]) * bins + index[:, 2], return_counts=True
    )
    best = cells[np.argmax(votes)]
    return (np.array([best // bins**2, best // bins % bins, best % bins]) - half) * bin_size


def published_points(camera: Camera, step: int = 15) -> Array:
    """(N, 2) px: the published voting grid, which starts at pixel 0."""
    x, y = np.meshgrid(np.arange(0, camera.width, step), np.arange(0, camera.height, step))
    return np.stack([x, y], -1).reshape(-1, 2).astype(np.float64)


def least_squares(points0: Array, points1: Array, camera: Camera) -> Array:
    """Gauss-Newton on the exact reprojection error, every vector with the same weight."""
    return _reweighted(points0, points1, camera, lambda r: np.ones_like(r))


def huber(points0: Array, points1: Array, camera: Camera, *, scale: float = 1.0) -> Array:
    """Iteratively re-weighted least squares from zero with Huber's weights; ``scale`` in px."""
    return _reweighted(points0, points1, camera, lambda r: scale / np.maximum(r, scale))


def _reweighted(
    points0: Array, points1: Array, camera: Camera, weight: Callable[[Array], Array]
) -> Array:
    rows = _rows(points0, points1, camera)
    rotvec = np.zeros(3)
    for _ in range(30):
        error = residuals(rotvec, rows)
        x, y = rows[2:4] - error / rows[4]  # the predicted points
        jacobian = rows[4] * np.array([[x * y, -(1 + x * x), y], [1 + y * y, -x * y, -x]])
        k = weight(np.hypot(*error))
        information = np.einsum("n,cin,cjn->ij", k, jacobian, jacobian)
        step = np.linalg.solve(information, np.einsum("n,cin,cn->i", k, jacobian, error))
        rotvec = so3.log(so3.exp(rotvec) @ so3.exp(step))
        if np.abs(step).max() < 1e-9:
            break
    return rotvec


def two_point(
    points0: Array,
    points1: Array,
    camera: Camera,
    *,
    iterations: int = 200,
    threshold: float = 1.0,
    seed: int = 0,
) -> Array:
    """Two-point RANSAC for a rotation, then least squares on the inliers; ``threshold`` in px."""
    rows = _rows(points0, points1, camera)
    rng = np.random.default_rng(seed)
    p, q = (np.concatenate([r, np.ones((1, r.shape[1]))]) for r in (rows[:2], rows[2:4]))
    p, q = p / np.linalg.norm(p, axis=0), q / np.linalg.norm(q, axis=0)
    best, most = np.zeros(3), -1
    for _ in range(iterations):
        pair = rng.choice(rows.shape[1], 2, replace=False)
        frame_p, frame_q = _frame(p[:, pair]), _frame(q[:, pair])
        if frame_p is None or frame_q is None:
            continue
        rotvec = so3.log(frame_p @ frame_q.T)
        inliers = int((np.hypot(*residuals(rotvec, rows)) < threshold).sum())
        if inliers > most:
            best, most = rotvec, inliers
    near = np.hypot(*residuals(best, rows)) < threshold
    if near.sum() < 3:
        return best
    start = np.asarray(points0)[_finite(points0, points1, camera)][near]
    end = np.asarray(points1)[_finite(points0, points1, camera)][near]
    return least_squares(start, end, camera)


def _frame(rays: Array) -> Array | None:
    """Orthonormal frame (3, 3) of two rays (3, 2): their mean, and their normal."""
    mean, normal = rays.sum(1), np.cross(rays[:, 0], rays[:, 1])
    if np.linalg.norm(normal) < 1e-9:
        return None
    mean, normal = mean / np.linalg.norm(mean), normal / np.linalg.norm(normal)
    return np.stack([mean, normal, np.cross(mean, normal)], 1)


def essential_ransac(points0: Array, points1: Array, camera: Camera) -> Array:
    """OpenCV's essential matrix by RANSAC at 1 px, then ``recoverPose``."""
    import cv2

    return _essential(points0, points1, camera, cv2.RANSAC)


def essential_magsac(points0: Array, points1: Array, camera: Camera) -> Array:
    """OpenCV's essential matrix by USAC-MAGSAC at 1 px, then ``recoverPose``."""
    import cv2

    return _essential(points0, points1, camera, cv2.USAC_MAGSAC)


def _essential(points0: Array, points1: Array, camera: Camera, method: int) -> Array:
    import cv2

    rows = _rows(points0, points1, camera)
    start, end = np.ascontiguousarray(rows[:2].T), np.ascontiguousarray(rows[2:4].T)
    matrix, mask = cv2.findEssentialMat(
        start, end, np.eye(3), method=method, prob=0.999, threshold=1.0 / camera.focal
    )
    if matrix is None or matrix.shape != (3, 3):
        return np.zeros(3)
    _, rotation, _, _ = cv2.recoverPose(matrix, start, end, np.eye(3), mask=mask)
    return so3.convert(so3.log(rotation), "points")


def homography(points0: Array, points1: Array, camera: Camera) -> Array:
    """OpenCV's homography by USAC-MAGSAC at 1.5 px, and the nearest rotation to it."""
    import cv2

    rows = _rows(points0, points1, camera)
    matrix, _ = cv2.findHomography(
        rows[:2].T, rows[2:4].T, cv2.USAC_MAGSAC, 1.5 / camera.focal, maxIters=2000
    )
    if matrix is None:
        return np.zeros(3)
    u, _, vt = np.linalg.svd(matrix / np.cbrt(np.linalg.det(matrix)))
    rotation = u @ np.diag([1.0, 1.0, np.linalg.det(u @ vt)]) @ vt
    return so3.convert(so3.log(rotation), "points")


def poselib(points0: Array, points1: Array, camera: Camera, *, seed: int = 0) -> Array:
    """PoseLib's LO-RANSAC relative pose at 1 px, its other options at their defaults.

    Raises:
        ModuleNotFoundError: PoseLib is not installed.
    """
    import poselib as library

    rows = _rows(points0, points1, camera)
    f = camera.focal
    pinhole = {"model": "SIMPLE_PINHOLE", "width": 2, "height": 2, "params": [f, 0.0, 0.0]}
    pose, _ = library.estimate_relative_pose(
        np.ascontiguousarray(rows[:2].T * f),
        np.ascontiguousarray(rows[2:4].T * f),
        pinhole,
        pinhole,
        {"max_epipolar_error": 1.0, "seed": seed},
        {},
    )
    return so3.convert(so3.log(pose.R), "points")


def _finite(points0: Array, points1: Array, camera: Camera) -> NDArray[np.bool_]:
    start, end = camera.normalise(points0), camera.normalise(points1)
    seen: NDArray[np.bool_] = np.isfinite(np.concatenate([start, end], 1)).all(1)
    return seen


def _rows(points0: Array, points1: Array, camera: Camera) -> Array:
    """(6, N) rows of the tracks that the camera sees, see `inputs`."""
    points0, points1 = np.asarray(points0, np.float64), np.asarray(points1, np.float64)
    start, end = camera.normalise(points0), camera.normalise(points1)
    rows = stack_rows(camera, points0, start, end)
    return np.ascontiguousarray(rows[:, np.isfinite(rows).all(0)])
