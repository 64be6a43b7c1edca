"""Numba twin of `refinement`: the same Gauss-Newton passes over contiguous rows, vectorised.

Fast-math is allowed here: sums may be reordered. ``error_model="numpy"`` matters, since Python's
check for division by zero keeps the loops from being vectorised (8 times slower).

The kernels copy arrays by loops and multiply matrices by hand: numba's ``@`` needs SciPy, which a
plain install lacks, and its array assignments compile for seconds (the texts of their errors).
"""
# ruff: noqa: TID253 - this module is numba; `refinement` imports it on first use

from typing import Any

import numpy as np
from numba import njit

from visionlab.rotation.refinement import (
    ANNEAL,
    MODE_SCALE,
    PASSES,
    SCALE_BOUNDS,
    THIN_ABOVE,
)

MAD_BINS = 512


@njit(cache=True, nogil=True)
def exp_so3(w: Any) -> Any:
    """Rotation matrix of a rotation vector (Rodrigues)."""
    square = w[0] * w[0] + w[1] * w[1] + w[2] * w[2]
    angle = np.sqrt(square)
    if angle < 1e-4:
        first, second = 1.0 - square / 6.0, 0.5 - square / 24.0
    else:
        first, second = np.sin(angle) / angle, (1.0 - np.cos(angle)) / square
    out = np.empty((3, 3))
    for i in range(3):
        for j in range(3):
            out[i, j] = second * w[i] * w[j]
        out[i, i] += 1.0 - second * square
    out[0, 1] -= first * w[2]
    out[1, 0] += first * w[2]
    out[0, 2] += first * w[1]
    out[2, 0] -= first * w[1]
    out[1, 2] -= first * w[0]
    out[2, 1] += first * w[0]
    return out


@njit(cache=True, nogil=True)
def turned(m: Any, w: Any) -> Any:
    """``m`` times the rotation matrix of ``w``."""
    turn, out = exp_so3(w), np.empty((3, 3))
    for i in range(3):
        for j in range(3):
            out[i, j] = m[i, 0] * turn[0, j] + m[i, 1] * turn[1, j] + m[i, 2] * turn[2, j]
    return out


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def normal_equations(rows: Any, m: Any, scale: float, out: Any) -> None:
    """Weighted sums of one pass into ``out``: 6 of J^T J, 3 of J^T r."""
    x, y, u, v, focal, weight = rows[0], rows[1], rows[2], rows[3], rows[4], rows[5]
    m00, m01, m02 = m[0, 0], m[0, 1], m[0, 2]
    m10, m11, m12 = m[1, 0], m[1, 1], m[1, 2]
    m20, m21, m22 = m[2, 0], m[2, 1], m[2, 2]
    s2 = scale * scale
    a00 = a01 = a02 = a11 = a12 = a22 = b0 = b1 = b2 = 0.0
    for i in range(len(x)):
        # q ~ R^T p, the transpose by reading columns
        inverse = 1.0 / (m02 * x[i] + m12 * y[i] + m22)
        px = (m00 * x[i] + m10 * y[i] + m20) * inverse
        py = (m01 * x[i] + m11 * y[i] + m21) * inverse
        f2 = focal[i] * focal[i]
        rx, ry = u[i] - px, v[i] - py
        ratio = s2 / (s2 + f2 * (rx * rx + ry * ry))
        k = ratio * ratio * weight[i] * f2
        xy, xx, yy = px * py, 1.0 + px * px, 1.0 + py * py
        a00 += k * (xy * xy + yy * yy)
        a01 += -k * xy * (xx + yy)
        a02 += k * (xy * py - yy * px)
        a11 += k * (xx * xx + xy * xy)
        a12 += k * (xy * px - xx * py)
        a22 += k * (py * py + px * px)
        b0 += k * (xy * rx + yy * ry)
        b1 += -k * (xx * rx + xy * ry)
        b2 += k * (py * rx - px * ry)
    out[0], out[1], out[2], out[3], out[4], out[5] = a00, a01, a02, a11, a12, a22
    out[6], out[7], out[8] = b0, b1, b2


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def residuals(rows: Any, m: Any, out: Any) -> None:
    """Residual components in px, (2, N) into ``out``."""
    x, y, u, v, focal = rows[0], rows[1], rows[2], rows[3], rows[4]
    for i in range(len(x)):
        inverse = 1.0 / (m[0, 2] * x[i] + m[1, 2] * y[i] + m[2, 2])
        out[0, i] = focal[i] * (u[i] - (m[0, 0] * x[i] + m[1, 0] * y[i] + m[2, 0]) * inverse)
        out[1, i] = focal[i] * (v[i] - (m[0, 1] * x[i] + m[1, 1] * y[i] + m[2, 1]) * inverse)


@njit(cache=True, nogil=True)
def median_deviation(error: Any, weight: Any, reach: float) -> float:
    """Weighted median of |component| among vectors shorter than ``reach``, by a fine histogram."""
    counts = np.zeros(MAD_BINS)
    to_bin = MAD_BINS / reach
    limit = reach * reach
    for i in range(error.shape[1]):
        a, b = abs(error[0, i]), abs(error[1, i])
        if a * a + b * b < limit:
            counts[min(int(a * to_bin), MAD_BINS - 1)] += weight[i]
            counts[min(int(b * to_bin), MAD_BINS - 1)] += weight[i]
    half, total = counts.sum() / 2.0, 0.0
    for j in range(MAD_BINS):
        if total + counts[j] >= half and counts[j] > 0.0:
            return (j + (half - total) / counts[j]) / to_bin
        total += counts[j]
    return 0.0


@njit(cache=True, nogil=True)
def solve3(a: Any, information: Any, step: Any) -> bool:
    """Solve the 3x3 normal equations in ``a`` (9 sums); False where they are singular."""
    information[0, 0], information[0, 1], information[0, 2] = a[0], a[1], a[2]
    information[1, 0], information[1, 1], information[1, 2] = a[1], a[3], a[4]
    information[2, 0], information[2, 1], information[2, 2] = a[2], a[4], a[5]
    c00, c01, c02 = a[3] * a[5] - a[4] * a[4], a[2] * a[4] - a[1] * a[5], a[1] * a[4] - a[2] * a[3]
    c11, c12, c22 = a[0] * a[5] - a[2] * a[2], a[1] * a[2] - a[0] * a[4], a[0] * a[3] - a[1] * a[1]
    determinant = a[0] * c00 + a[1] * c01 + a[2] * c02
    if not determinant > 1e-12 * a[0] * a[3] * a[5]:
        return False
    step[0] = (c00 * a[6] + c01 * a[7] + c02 * a[8]) / determinant
    step[1] = (c01 * a[6] + c11 * a[7] + c12 * a[8]) / determinant
    step[2] = (c02 * a[6] + c12 * a[7] + c22 * a[8]) / determinant
    return True


@njit(cache=True, nogil=True)
def log_so3(m: Any) -> Any:
    """Rotation vector of a rotation matrix whose angle stays well below pi."""
    w = np.array([m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]]) / 2.0
    sine = np.sqrt(w[0] * w[0] + w[1] * w[1] + w[2] * w[2])
    if sine < 1e-9:
        return w
    return w * (np.arctan2(sine, (m[0, 0] + m[1, 1] + m[2, 2] - 1.0) / 2.0) / sine)


@njit(cache=True, nogil=True)
def inverse3(a: Any) -> Any:
    """Inverse of a symmetric positive 3x3 matrix by cofactors."""
    out = np.empty((3, 3))
    for i in range(3):
        j, k = (i + 1) % 3, (i + 2) % 3
        for c in range(3):
            d, e = (c + 1) % 3, (c + 2) % 3
            out[c, i] = a[j, d] * a[k, e] - a[j, e] * a[k, d]
    return out / (a[0, 0] * out[0, 0] + a[0, 1] * out[1, 0] + a[0, 2] * out[2, 0])


@njit(cache=True, nogil=True)
def irls(rows: Any, start: Any, first_scale: float, scale: float) -> Any:
    """See `refinement.irls_numpy`: the same schedule, one pass after the other."""
    auto = scale <= 0.0
    target = MODE_SCALE if auto else scale
    thin = rows[:, ::3].copy() if rows.shape[1] > THIN_ABOVE else rows
    matrix = exp_so3(start)
    sums, step, information = np.zeros(9), np.zeros(3), np.zeros((3, 3))
    error = np.empty((2, rows.shape[1]))
    for it in range(PASSES):
        if it < ANNEAL:
            s = first_scale * (target / first_scale) ** (it / (ANNEAL - 1))
        else:
            if it == ANNEAL and auto:
                residuals(rows, matrix, error)
                spread = 1.4826 * median_deviation(error, rows[5], 3.0 * target)
                target = min(max(spread, SCALE_BOUNDS[0]), SCALE_BOUNDS[1])
            s = target
        normal_equations(thin if it < ANNEAL else rows, matrix, s, sums)
        if not solve3(sums, information, step):
            return log_so3(matrix), target, information, False, error
        matrix = turned(matrix, step)
        if it > ANNEAL and np.abs(step).max() < 1e-8:
            break
    residuals(rows, matrix, error)
    return log_so3(matrix), target, inverse3(information) * target**2, True, error
