"""Numba kernels of the joint model (`joint`): one vectorised EM and Gauss-Newton pass.

Every loop over points is branch-free so that it vectorises: `exp` and the normal distribution are
short polynomials, not calls. That is what lets many headings be tried within a millisecond.
"""
# ruff: noqa: TID253 - this module is numba; `joint` imports it on first use

from typing import Any

import numpy as np
from numba import njit

from visionlab.rotation.refinement_numba import exp_so3, turned

ROOT_TWO_PI = 2.5066282746310002
FAR_RATIO = 20.0  # the far class has this fraction of the near class's mean inverse depth
# state of the mixture: shares of near, far and outliers, mean inverse depth, outlier scale in px
NEAR, FAR, OUT, RHO, SPREAD = 0, 1, 2, 3, 4
PAIRS = 15  # upper triangle of a 5x5 matrix; then come 5 of the gradient and 7 of the mixture
SUMS = PAIRS + 5 + 7


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def fast_exp(x: float) -> float:
    """exp(x) for -40 <= x <= 20, relative error 1e-4: Taylor series at x/64, then six squarings."""
    t = min(max(x, -40.0), 20.0) * (1.0 / 64.0)
    e = 1.0 + t * (1.0 + t * (0.5 + t * (1 / 6.0 + t * (1 / 24.0 + t * (1 / 120.0 + t / 720.0)))))
    e = e * e
    e = e * e
    e = e * e
    e = e * e
    e = e * e
    return e * e


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def depth_density(al: float, s: float, lam: float, bell: float) -> Any:
    """Exponential of rate ``lam`` per px convolved with noise ``s``: density, h = phi/Phi, and z.

    ``bell`` is exp(-al^2 / (2 s^2)). The normal tail is Abramowitz and Stegun 26.2.17.
    """
    z = al / s - lam * s
    tilt = fast_exp(lam * (0.5 * lam * s * s - al))
    t = 1.0 / (1.0 + 0.2316419 * abs(z))
    tail = 0.319381530 + t * (
        -0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429))
    )
    mills = t * tail  # Q(|z|) / phi(z)
    phi = bell / (ROOT_TWO_PI * tilt)
    rest = 1.0 - phi * mills
    positive = z > 0.0
    density = lam * (tilt * rest if positive else bell * mills / ROOT_TWO_PI)
    hazard = phi / rest if positive else 1.0 / mills
    return density, hazard, z


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def accumulate(rows: Any, m: Any, frame: Any, state: Any, s: float, sums: Any, total: Any) -> None:
    """One E step at noise ``s`` and the sums of the M and Gauss-Newton steps.

    Args:
        rows: (6, N), see `inputs`.
        m: (3, 3) camera rotation.
        frame: (3, 3) rows: heading t and two unit vectors across it.
        state: mixture.
        sums: (SUMS,) receives the sums.
        total: (N,) receives each point's density.
    """
    x, y, u, v, focal, weight = rows[0], rows[1], rows[2], rows[3], rows[4], rows[5]
    m00, m01, m02 = m[0, 0], m[0, 1], m[0, 2]
    m10, m11, m12 = m[1, 0], m[1, 1], m[1, 2]
    m20, m21, m22 = m[2, 0], m[2, 1], m[2, 2]
    t0, t1, t2 = frame[0, 0], frame[0, 1], frame[0, 2]
    c0, c1, c2 = frame[1, 0], frame[1, 1], frame[1, 2]
    d0, d1, d2 = frame[2, 0], frame[2, 1], frame[2, 2]
    precision, half = 1.0 / (s * s), 0.5 / (s * s)
    steepest, per_rho = 6.0 / s, 1.0 / state[RHO]
    near_share = state[NEAR] / (ROOT_TWO_PI * s)
    far_share = state[FAR] / (ROOT_TWO_PI * s)
    wide = 0.5 / (state[SPREAD] * state[SPREAD])
    out_share = state[OUT] * wide / np.pi
    a00 = a01 = a02 = a03 = a04 = a11 = a12 = a13 = a14 = 0.0
    a22 = a23 = a24 = a33 = a34 = a44 = g0 = g1 = g2 = g3 = g4 = 0.0
    sum_near = sum_far = sum_out = sum_rho = sum_square = sum_core = sum_weight = 0.0
    for i in range(x.shape[0]):
        f = focal[i]
        inverse = 1.0 / (m02 * x[i] + m12 * y[i] + m22)
        px = (m00 * x[i] + m10 * y[i] + m20) * inverse
        py = (m01 * x[i] + m11 * y[i] + m21) * inverse
        rx, ry = f * (u[i] - px), f * (v[i] - py)
        ex, ey = f * (px * t2 - t0), f * (py * t2 - t1)
        reach = 1.0 / np.sqrt(ex * ex + ey * ey + 1e-6 * f * f)
        nx, ny = ex * reach, ey * reach
        al, ac = nx * rx + ny * ry, nx * ry - ny * rx
        square = rx * rx + ry * ry
        lam = min(per_rho * reach, steepest)
        lam_far = min(FAR_RATIO * per_rho * reach, steepest)
        bell = fast_exp(-half * al * al)
        near, h_near, z_near = depth_density(al, s, lam, bell)
        far, h_far, z_far = depth_density(al, s, lam_far, bell)
        across = fast_exp(-half * ac * ac)
        inside = (ac * ac < 25.0 * s * s) & (al > -6.0 * s)
        core = 1.0 / (1.0 + square * wide)
        near = near_share * across * near if inside else 0.0
        far = far_share * across * far if inside else 0.0
        out = out_share * core * core
        density = near + far + out
        total[i] = density
        share = weight[i] / density
        near, far, out = near * share, far * share, out * share
        kq = (near + far) * precision
        kl = (near * h_near * (z_near + h_near) + far * h_far * (z_far + h_far)) * precision
        score = near * (lam - h_near / s) + far * (lam_far - h_far / s)
        sum_near += near
        sum_far += far
        sum_out += out
        sum_rho += near * (al - lam * s * s + s * h_near) * reach
        sum_square += out * core * square
        sum_core += out * core
        sum_weight += weight[i]
        xy, xx, yy = f * px * py, f * (1.0 + px * px), f * (1.0 + py * py)
        fx, fy = f * px, f * py
        l0, l1, l2 = nx * xy + ny * yy, -nx * xx - ny * xy, nx * fy - ny * fx
        turn = 1.0 + al * t2 * reach
        q0 = (nx * yy - ny * xy) * turn
        q1 = (-nx * xy + ny * xx) * turn
        q2 = (-nx * fx - ny * fy) * turn
        lever = al * reach * f
        q3 = lever * (nx * (py * c2 - c1) - ny * (px * c2 - c0))
        q4 = lever * (nx * (py * d2 - d1) - ny * (px * d2 - d0))
        a00 += kq * q0 * q0 + kl * l0 * l0
        a01 += kq * q0 * q1 + kl * l0 * l1
        a02 += kq * q0 * q2 + kl * l0 * l2
        a03 += kq * q0 * q3
        a04 += kq * q0 * q4
        a11 += kq * q1 * q1 + kl * l1 * l1
        a12 += kq * q1 * q2 + kl * l1 * l2
        a13 += kq * q1 * q3
        a14 += kq * q1 * q4
        a22 += kq * q2 * q2 + kl * l2 * l2
        a23 += kq * q2 * q3
        a24 += kq * q2 * q4
        a33 += kq * q3 * q3
        a34 += kq * q3 * q4
        a44 += kq * q4 * q4
        kac = kq * ac
        g0 += kac * q0 + score * l0
        g1 += kac * q1 + score * l1
        g2 += kac * q2 + score * l2
        g3 += kac * q3
        g4 += kac * q4
    sums[0], sums[1], sums[2], sums[3], sums[4] = a00, a01, a02, a03, a04
    sums[5], sums[6], sums[7], sums[8] = a11, a12, a13, a14
    sums[9], sums[10], sums[11], sums[12], sums[13], sums[14] = a22, a23, a24, a33, a34, a44
    sums[15], sums[16], sums[17], sums[18], sums[19] = g0, g1, g2, g3, g4
    sums[20], sums[21], sums[22], sums[23] = sum_near, sum_far, sum_out, sum_rho
    sums[24], sums[25], sums[26] = sum_square, sum_core, sum_weight


@njit(cache=True, nogil=True)
def across_frame(t: Any, frame: Any) -> None:
    """Write the heading and two unit vectors across it into the rows of ``frame``."""
    axis = np.argmin(np.abs(t))
    c = -t[axis] * t
    c[axis] += 1.0
    length = np.sqrt((c * c).sum())
    for i in range(3):
        c[i] /= length
        frame[0, i], frame[1, i] = t[i], c[i]
    frame[2, 0] = t[1] * c[2] - t[2] * c[1]
    frame[2, 1] = t[2] * c[0] - t[0] * c[2]
    frame[2, 2] = t[0] * c[1] - t[1] * c[0]


@njit(cache=True, nogil=True)
def information(sums: Any, out: Any) -> None:
    """The symmetric 5x5 matrix of the sums."""
    at = 0
    for i in range(5):
        for j in range(i, 5):
            out[i, j] = out[j, i] = sums[at]
            at += 1


@njit(cache=True, nogil=True, error_model="numpy")
def solve5(a: Any, b: Any) -> bool:
    """Solve in place by elimination without pivoting (positive definite); answer in ``b``."""
    for i in range(5):
        if not a[i, i] > 1e-12:
            return False
        for j in range(i + 1, 5):
            ratio = a[j, i] / a[i, i]
            for k in range(i, 5):
                a[j, k] -= ratio * a[i, k]
            b[j] -= ratio * b[i]
    for i in range(4, -1, -1):
        for k in range(i + 1, 5):
            b[i] -= a[i, k] * b[k]
        b[i] /= a[i, i]
    return True


@njit(cache=True, nogil=True, error_model="numpy")
def passes(rows: Any, m: Any, t: Any, state: Any, first: float, last: float, count: int) -> float:
    """``count`` EM and Gauss-Newton passes, the noise falling from ``first`` to ``last`` px.

    Changes ``m``, ``t`` and ``state`` in place; returns the mean log-likelihood of the last E step.
    """
    sums, frame, a, step = np.empty(SUMS), np.empty((3, 3)), np.empty((5, 5)), np.empty(5)
    total = np.empty(rows.shape[1])
    for it in range(count):
        s = first * (last / first) ** (it / (count - 1)) if count > 1 else last
        across_frame(t, frame)
        accumulate(rows, m, frame, state, s, sums, total)
        information(sums, a)
        weight = sums[26]
        for i in range(5):
            a[i, i] *= 1.0 + 1e-4
            step[i] = sums[PAIRS + i]
        a[3, 3] += 5.0 * weight / 5184.0
        a[4, 4] += 5.0 * weight / 5184.0
        if not solve5(a, step):
            return -np.inf
        length = np.sqrt(step[3] * step[3] + step[4] * step[4])
        if length > 0.5:
            step[3] *= 0.5 / length
            step[4] *= 0.5 / length
        after = turned(m, step)
        for i in range(3):
            for j in range(3):
                m[i, j] = after[i, j]
            t[i] = t[i] + step[3] * frame[1, i] + step[4] * frame[2, i]
        length = np.sqrt(t[0] * t[0] + t[1] * t[1] + t[2] * t[2])
        for i in range(3):
            t[i] /= length
        update_mixture(sums, state)
    likelihood = 0.0
    for i in range(len(total)):
        likelihood += rows[5, i] * np.log(total[i])
    return likelihood / sums[26]


@njit(cache=True, nogil=True, error_model="numpy")
def update_mixture(sums: Any, state: Any) -> None:
    """M step: shares, mean inverse depth and outlier scale, each with a weak prior."""
    weight = sums[26]
    floor = 0.02 * weight
    for j in range(3):
        state[j] = (sums[20 + j] + floor) / (weight + 3.0 * floor)
    state[RHO] = min(max(sums[23] / max(sums[20], 1e-9), 1e-6), 0.2)
    state[SPREAD] = np.sqrt((sums[24] + 0.12 * weight) / (sums[25] + 0.02 * weight))
    state[SPREAD] = min(max(state[SPREAD], 1.2), 12.0)


@njit(cache=True, nogil=True)
def start_state(focal: float) -> Any:
    """Mixture to begin with."""
    return np.array([0.4, 0.3, 0.3, 0.003 * 413.75 / focal, 3.0])


@njit(cache=True, nogil=True)
def keep_best(scores: Any, matrices: Any, headings: Any, count: int) -> Any:
    """Indices of the ``count`` most likely different solutions, best first."""
    kept = np.empty(count, np.int64)
    n = 0
    left = scores.copy()
    for _ in range(len(left)):  # few are kept: no sort, which numba compiles for seconds
        i = np.argmax(left)
        new = left[i] > -np.inf
        left[i] = -np.inf
        for j in range(n):
            other = kept[j]
            same_turn = np.abs(matrices[i] - matrices[other]).max() < 2e-4
            if same_turn and (headings[i] * headings[other]).sum() > 0.95:
                new = False
        if new:
            kept[n] = i
            n += 1
            if n == count:
                break
    return kept[:n]


@njit(cache=True, nogil=True)
def search(
    coarse: Any, middle: Any, mode: Any, headings: Any, focal: float, s1: float, keep: Any
) -> Any:
    """The best rotation and heading from many starts, in three rounds of fewer and fewer."""
    count = headings.shape[0]
    matrices, ts, states = np.empty((count, 3, 3)), headings.copy(), np.empty((count, 5))
    scores = np.empty(count)
    start, state = exp_so3(mode), start_state(focal)
    for i in range(count):
        for j in range(3):
            for k in range(3):
                matrices[i, j, k] = start[j, k]
        for j in range(5):
            states[i, j] = state[j]
    first = (1.2, 0.6, max(s1, 0.5))
    last = (0.6, max(s1, 0.45), s1)
    kept = np.arange(count)
    for turn in range(3):
        rows = middle if turn == 2 else coarse
        reached = np.full(count, -np.inf)
        for i in kept:
            reached[i] = passes(
                rows, matrices[i], ts[i], states[i], first[turn], last[turn], turn + 2
            )
        scores = reached
        if turn < 2:
            kept = keep_best(scores, matrices, ts, keep[turn])
    best = np.argmax(scores)
    return matrices[best], ts[best], states[best], scores[best]


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def rotation_density(rows: Any, m: Any, s: float, out_share: float, spread: float, out: Any) -> Any:
    """Density of each point under rotation alone, and the sums of its EM step."""
    wide, half = 0.5 / (spread * spread), 0.5 / (s * s)
    sum_in = sum_error = sum_square = sum_core = sum_weight = 0.0
    for i in range(rows.shape[1]):
        inverse = 1.0 / (m[0, 2] * rows[0, i] + m[1, 2] * rows[1, i] + m[2, 2])
        px = (m[0, 0] * rows[0, i] + m[1, 0] * rows[1, i] + m[2, 0]) * inverse
        py = (m[0, 1] * rows[0, i] + m[1, 1] * rows[1, i] + m[2, 1]) * inverse
        rx, ry = rows[4, i] * (rows[2, i] - px), rows[4, i] * (rows[3, i] - py)
        square = rx * rx + ry * ry
        core = 1.0 / (1.0 + square * wide)
        inner = (1.0 - out_share) * half / np.pi * fast_exp(-half * square)
        outer = out_share * wide / np.pi * core * core
        out[0, i], out[1, i] = inner + outer, square
        inlier = inner / (inner + outer) * rows[5, i]
        outlier = rows[5, i] - inlier
        sum_in += inlier
        sum_error += inlier * square
        sum_square += outlier * core * square
        sum_core += outlier * core
        sum_weight += rows[5, i]
    return sum_in, sum_error, sum_square, sum_core, sum_weight


@njit(cache=True, nogil=True, error_model="numpy")
def fit_rotation_mixture(rows: Any, m: Any, s1: float, out: Any) -> float:
    """Five EM passes for noise (returned), outlier share and scale; densities into ``out[0]``."""
    share, spread, s = 0.3, 3.0, s1
    for _ in range(5):
        inner, error, square, core, weight = rotation_density(rows, m, s, share, spread, out)
        s = min(max(np.sqrt(error / max(2.0 * inner, 1e-9)), s1), 1.8 * s1)
        share = (weight - inner + 0.02 * weight) / (1.04 * weight)
        spread = np.sqrt((square + 0.12 * weight) / (core + 0.02 * weight))
        spread = min(max(spread, 1.2), 12.0)
    rotation_density(rows, m, s, share, spread, out)
    return s


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def across_scale(rows: Any, m: Any, t: Any, responsibility: Any) -> float:
    """Root mean square of the across-epipolar residual, weighted by ``responsibility``."""
    total = weight = 0.0
    for i in range(rows.shape[1]):
        inverse = 1.0 / (m[0, 2] * rows[0, i] + m[1, 2] * rows[1, i] + m[2, 2])
        px = (m[0, 0] * rows[0, i] + m[1, 0] * rows[1, i] + m[2, 0]) * inverse
        py = (m[0, 1] * rows[0, i] + m[1, 1] * rows[1, i] + m[2, 1]) * inverse
        ex, ey = px * t[2] - t[0], py * t[2] - t[1]
        ac = ex * (rows[3, i] - py) - ey * (rows[2, i] - px)
        total += responsibility[i] * rows[4, i] ** 2 * ac * ac / (ex * ex + ey * ey + 1e-6)
        weight += responsibility[i]
    return np.sqrt(total / max(weight, 1e-9))


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def static_share(rows: Any, m: Any, state: Any, total: Any, out: Any) -> None:
    """Probability of not being an outlier, from the densities of the last E step."""
    wide = 0.5 / (state[SPREAD] * state[SPREAD])
    share = state[OUT] * wide / np.pi
    for i in range(rows.shape[1]):
        inverse = 1.0 / (m[0, 2] * rows[0, i] + m[1, 2] * rows[1, i] + m[2, 2])
        px = (m[0, 0] * rows[0, i] + m[1, 0] * rows[1, i] + m[2, 0]) * inverse
        py = (m[0, 1] * rows[0, i] + m[1, 1] * rows[1, i] + m[2, 1]) * inverse
        rx, ry = rows[4, i] * (rows[2, i] - px), rows[4, i] * (rows[3, i] - py)
        core = 1.0 / (1.0 + (rx * rx + ry * ry) * wide)
        out[i] = 1.0 - share * core * core / total[i]
