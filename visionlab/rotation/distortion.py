"""Lens distortion on the normalised image plane: forward models and their exact inverses.

Brown-Conrady (Brown 1966) with OpenCV's rational extension, Kannala-Brandt (PAMI 2006, Eq. 3, as
``cv2.fisheye``), and the one-parameter field-of-view model (Devernay and Faugeras 2001, Eq. 13).
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_NEWTON_STEPS = 30
_CONVERGED = 1e-9  # on the plane z = 1: a millionth of a pixel


def distort_brown_conrady(plane: Array, coefficients: Array) -> Array:
    """Distorted plane coordinates (..., 2); coefficients k1 k2 p1 p2 [k3 [k4 k5 k6]]."""
    return _brown_conrady(plane, coefficients)[0]


def _brown_conrady(plane: Array, coefficients: Array) -> tuple[Array, Array]:
    """Distorted coordinates (..., 2) and the Jacobian (..., 2, 2) with respect to the plane."""
    k1, k2, p1, p2, k3, k4, k5, k6 = np.concatenate([coefficients, np.zeros(8 - len(coefficients))])
    x, y = plane[..., 0], plane[..., 1]
    r2 = x * x + y * y
    top, bottom = 1 + r2 * (k1 + r2 * (k2 + r2 * k3)), 1 + r2 * (k4 + r2 * (k5 + r2 * k6))
    radial = top / bottom
    # derivative of the radial factor with respect to r^2
    slope = (
        k1 + r2 * (2 * k2 + 3 * r2 * k3) - radial * (k4 + r2 * (2 * k5 + 3 * r2 * k6))
    ) / bottom
    out = np.stack(
        [
            x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
            y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y,
        ],
        -1,
    )
    mixed = 2 * x * y * slope + 2 * p1 * x + 2 * p2 * y
    xx = radial + 2 * x * x * slope + 2 * p1 * y + 6 * p2 * x
    yy = radial + 2 * y * y * slope + 6 * p1 * y + 2 * p2 * x
    return out, np.stack([np.stack([xx, mixed], -1), np.stack([mixed, yy], -1)], -2)


def undistort_brown_conrady(plane: Array, coefficients: Array) -> Array:
    """Inverse of the Brown-Conrady model by Newton's method; NaN where no ray reaches the pixel.

    Started at the distorted point; points behind the fold of a strong polynomial do not converge.
    """
    x = plane.copy()
    with np.errstate(all="ignore"):
        for _ in range(_NEWTON_STEPS):
            value, jacobian = _brown_conrady(x, coefficients)
            (a, b), (c, d) = np.moveaxis(jacobian, (-2, -1), (0, 1))
            r = plane - value
            determinant = a * d - b * c
            step = np.stack([d * r[..., 0] - b * r[..., 1], a * r[..., 1] - c * r[..., 0]], -1)
            step = step / determinant[..., None]
            x = x + step
            if np.nanmax(np.abs(step), initial=0.0) < 1e-13:
                break
        value, jacobian = _brown_conrady(x, coefficients)
        # beyond the fold the map turns over (a negative eigenvalue): another ray, not this pixel's
        xx, yy, xy = jacobian[..., 0, 0], jacobian[..., 1, 1], jacobian[..., 0, 1]
        folded = ~((xx * yy - xy * xy > 0) & (xx + yy > 0))
        wrong = folded | ~(np.abs(value - plane).max(-1) < _CONVERGED)
    x[wrong] = np.nan
    return x


def fisheye_radius(angle: Array, coefficients: Array) -> Array:
    """Distorted radius of a ray at ``angle`` rad from the axis: Kannala-Brandt, odd polynomial."""
    k1, k2, k3, k4 = coefficients
    t2 = angle * angle
    return angle * (1 + t2 * (k1 + t2 * (k2 + t2 * (k3 + t2 * k4))))


def fisheye_angle(radius: Array, coefficients: Array) -> Array:
    """Angle from the axis in rad of a distorted radius; NaN where no ray reaches it."""
    k1, k2, k3, k4 = coefficients
    angle = np.minimum(radius, np.pi / 2)
    with np.errstate(all="ignore"):
        for _ in range(_NEWTON_STEPS):
            t2 = angle * angle
            slope = 1 + t2 * (3 * k1 + t2 * (5 * k2 + t2 * (7 * k3 + t2 * 9 * k4)))
            step = (radius - fisheye_radius(angle, coefficients)) / slope
            angle = angle + np.clip(step, -0.5, 0.5)
            if np.nanmax(np.abs(step), initial=0.0) < 1e-14:
                break
        t2 = angle * angle
        slope = 1 + t2 * (3 * k1 + t2 * (5 * k2 + t2 * (7 * k3 + t2 * 9 * k4)))
        good = (
            (np.abs(fisheye_radius(angle, coefficients) - radius) < _CONVERGED)
            & (slope > 0)
            & (angle >= 0)
            & (angle <= np.pi)
        )
    return np.where(good, angle, np.nan)


def fov_radius(angle: Array, omega: float) -> Array:
    """Distorted radius of the field-of-view model; ``omega`` in rad; NaN from 90 degrees on."""
    with np.errstate(all="ignore"):
        rectilinear = np.where(angle < np.pi / 2, np.tan(angle), np.nan)
    if abs(omega) < 1e-8:
        return rectilinear
    return np.arctan(2 * rectilinear * np.tan(omega / 2)) / omega


def fov_angle(radius: Array, omega: float) -> Array:
    """Inverse of `fov_radius`; NaN where the radius lies outside the image of the half space."""
    if abs(omega) < 1e-8:
        return np.arctan(radius)
    reach = radius * omega
    inside = np.abs(reach) < np.pi / 2
    return np.where(
        inside, np.arctan(np.tan(np.where(inside, reach, 0.0)) / (2 * np.tan(omega / 2))), np.nan
    )
