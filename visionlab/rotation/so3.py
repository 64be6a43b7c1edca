"""Rotation vectors, matrices and quaternions, and the axes in which others write them.

Convention of the whole package: camera axes x right, y down, z forward (OpenCV); an estimate is the
rotation of the *camera* from frame i to frame i+1, ``log(R_wc_i^-1 R_wc_{i+1})``, in radians. The
points of a static scene move by its inverse. Quaternions are xyzw, scalar last.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from visionlab.registry import suggest

Array = NDArray[np.float64]

_SMALL = 1e-4  # below this angle (rad) the series are exact to 1e-16


def hat(rotvec: ArrayLike) -> Array:
    """Cross-product matrix [w] of shape (..., 3, 3): ``hat(w) @ v == cross(w, v)``."""
    w = np.asarray(rotvec, np.float64)
    out = np.zeros((*w.shape, 3))
    out[..., 2, 1], out[..., 0, 2], out[..., 1, 0] = w[..., 0], w[..., 1], w[..., 2]
    return out - np.swapaxes(out, -1, -2)


def exp(rotvec: ArrayLike) -> Array:
    """Rotation matrices (..., 3, 3) of rotation vectors (..., 3) in rad (Rodrigues).

    Example:
        >>> exp([0.0, 0.0, np.pi / 2]).round(12)[0].tolist()
        [0.0, -1.0, 0.0]
    """
    w = np.asarray(rotvec, np.float64)
    square = (w * w).sum(-1)[..., None, None]
    angle = np.sqrt(square)
    small = angle < _SMALL
    safe = np.where(small, 1.0, angle)
    first = np.where(small, 1 - square / 6, np.sin(safe) / safe)
    second = np.where(small, 0.5 - square / 24, (1 - np.cos(safe)) / (safe * safe))
    cross = hat(w)
    return np.eye(3) + first * cross + second * (cross @ cross)


def log(matrix: ArrayLike) -> Array:
    """Rotation vectors (..., 3) of rotation matrices (..., 3, 3), angle in [0, pi].

    Goes through the quaternion, so that angles near 0 and near pi keep full precision.
    """
    return rotvec_from_quaternion(quaternion_from_matrix(matrix))


def angle_between(first: ArrayLike, second: ArrayLike) -> Array:
    """Geodesic distance in rad between rotations given as rotation vectors (..., 3).

    Example:
        >>> float(angle_between([0, 0, 0.3], [0, 0, 0.1]).round(12))
        0.2
    """
    a, b = quaternion_from_rotvec(first), quaternion_from_rotvec(second)
    relative = multiply(a * np.array([-1.0, -1.0, -1.0, 1.0]), b)
    return 2 * np.arctan2(np.linalg.norm(relative[..., :3], axis=-1), np.abs(relative[..., 3]))


def multiply(first: ArrayLike, second: ArrayLike) -> Array:
    """Hamilton product of xyzw quaternions (..., 4): the rotation ``R(first) @ R(second)``."""
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    av, aw, bv, bw = a[..., :3], a[..., 3:], b[..., :3], b[..., 3:]
    vector = aw * bv + bw * av + np.cross(av, bv)
    return np.concatenate([vector, aw * bw - (av * bv).sum(-1, keepdims=True)], -1)


def quaternion_from_rotvec(rotvec: ArrayLike) -> Array:
    """Unit quaternions xyzw (..., 4) of rotation vectors (..., 3) in rad."""
    w = np.asarray(rotvec, np.float64)
    half = np.linalg.norm(w, axis=-1, keepdims=True) / 2
    # numpy's sinc(x) is sin(pi x)/(pi x), finite at 0
    return np.concatenate([w * (0.5 * np.sinc(half / np.pi)), np.cos(half)], -1)


def rotvec_from_quaternion(quaternion: ArrayLike) -> Array:
    """Rotation vectors (..., 3) in rad, angle in [0, pi], of unit quaternions xyzw (..., 4).

    Raises:
        ValueError: a quaternion's norm is off one by more than 1e-3.
    """
    q = np.asarray(quaternion, np.float64)
    norm = np.linalg.norm(q, axis=-1, keepdims=True)
    if q.shape[-1:] != (4,) or not np.all(np.abs(norm - 1) < 1e-3):
        raise ValueError(
            f"expected unit quaternions x, y, z, w of shape (..., 4), got shape {q.shape} with "
            f"norms from {norm.min(initial=np.inf):.4g} to {norm.max(initial=-np.inf):.4g}; "
            "normalise them or check the column order"
        )
    q = q / norm
    q = np.where(q[..., 3:] < 0, -q, q)
    sine = np.linalg.norm(q[..., :3], axis=-1, keepdims=True)
    angle = 2 * np.arctan2(sine, q[..., 3:])
    small = sine < _SMALL**2
    return q[..., :3] * np.where(small, 2.0, angle / np.where(small, 1.0, sine))


def quaternion_from_matrix(matrix: ArrayLike) -> Array:
    """Unit quaternions xyzw (..., 4), w >= 0, of rotation matrices (..., 3, 3)."""
    m = np.asarray(matrix, np.float64)
    if m.shape[-2:] != (3, 3):
        raise ValueError(f"expected rotation matrices of shape (..., 3, 3), got {m.shape}")
    x, y, z = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    # row i is q scaled by 4 q_i; the row of the largest |q_i| is the stable one
    xy, xz, yz = (
        m[..., 0, 1] + m[..., 1, 0],
        m[..., 0, 2] + m[..., 2, 0],
        m[..., 1, 2] + m[..., 2, 1],
    )
    xw, yw, zw = (
        m[..., 2, 1] - m[..., 1, 2],
        m[..., 0, 2] - m[..., 2, 0],
        m[..., 1, 0] - m[..., 0, 1],
    )
    top = [1 + x - y - z, xy, xz, xw, xy, 1 - x + y - z, yz, yw]
    bottom = [xz, yz, 1 - x - y + z, zw, xw, yw, zw, 1 + x + y + z]
    rows = np.stack([*top, *bottom], -1).reshape(*m.shape[:-2], 4, 4)
    diagonal = np.diagonal(rows, axis1=-2, axis2=-1)
    best = np.argmax(diagonal, -1)[..., None, None]
    q = np.take_along_axis(rows, best, -2)[..., 0, :]
    q = q / np.linalg.norm(q, axis=-1, keepdims=True)
    return np.where(q[..., 3:] < 0, -q, q)


def matrix_from_quaternion(quaternion: ArrayLike) -> Array:
    """Rotation matrices (..., 3, 3) of unit quaternions xyzw (..., 4)."""
    return exp(rotvec_from_quaternion(quaternion))


# Each of these is its own inverse, so one table serves both directions.
CONVENTIONS: dict[str, Callable[[Array], Array]] = {
    "camera": lambda w: w,
    "points": lambda w: -w,  # what cv2.recoverPose and PoseLib return as R
    "opengl": lambda w: w * np.array([1.0, -1.0, -1.0]),  # x right, y up, z back
    "buss": lambda w: w * np.array([1.0, 1.0, -1.0]),  # inverse, turned 180 deg about the view axis
}


def convert(rotvec: ArrayLike, convention: str) -> Array:
    """Write camera rotations (..., 3) in another convention, or read them from it (same formula).

    Args:
        convention: ``camera`` (this package: OpenCV axes, camera rotation), ``points`` (motion of
            the points: ``cv2.recoverPose``, PoseLib), ``opengl`` (camera rotation, y up and z
            back), ``buss`` (ground truth of the BUSS data set, arXiv 2309.08588).

    Raises:
        ValueError: no such convention.
    """
    if convention not in CONVENTIONS:
        raise ValueError(f"no convention '{convention}'. {suggest(convention, CONVENTIONS)}")
    return CONVENTIONS[convention](np.asarray(rotvec, np.float64))
