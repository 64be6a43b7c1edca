"""Lens models and their inverses: there and back, slopes, and NaN where no ray arrives."""

import numpy as np
import pytest

from visionlab.rotation import distortion

RNG = np.random.default_rng(0)
PLANE = RNG.uniform(-0.7, 0.7, (500, 2))
STRONG = np.array([-0.28, 0.07, 2e-4, 1e-5])
RATIONAL = np.array([0.3, -0.1, 1e-3, -5e-4, 0.02, 0.35, -0.05, 0.01])
FISHEYE = np.array([0.02, -0.007, 0.003, -0.0004])


@pytest.mark.parametrize("coefficients", [STRONG, [*STRONG.tolist(), 0.01], RATIONAL])
def test_brown_conrady_there_and_back(coefficients):
    coefficients = np.asarray(coefficients)
    bent = distortion.distort_brown_conrady(PLANE, coefficients)
    assert np.abs(bent - PLANE).max() > 1e-3
    back = distortion.undistort_brown_conrady(bent, coefficients)
    np.testing.assert_allclose(back, PLANE, atol=1e-12)


def test_its_jacobian_is_the_slope():
    _, jacobian = distortion._brown_conrady(PLANE, RATIONAL)
    step = 1e-6
    for axis in (0, 1):
        shift = step * np.eye(2)[axis]
        ahead, behind = (distortion.distort_brown_conrady(PLANE + s * shift, RATIONAL)
                         for s in (1, -1))  # fmt: skip
        np.testing.assert_allclose(jacobian[..., axis], (ahead - behind) / (2 * step), atol=1e-8)


def test_beyond_the_fold_there_is_no_ray():
    """r (1 - 0.3 r^2) turns over at r = 1.054, where it reaches 0.703."""
    folding = np.array([-0.3, 0.0, 0.0, 0.0])
    radius = np.array([0.5, 0.70, 0.71, 5.0])
    back = distortion.undistort_brown_conrady(np.stack([radius, 0 * radius], -1), folding)
    assert np.isfinite(back).all(-1).tolist() == [True, True, False, False]
    assert (np.abs(back[:2, 0]) < 1.055).all()


def test_fisheye_there_and_back_beyond_ninety_degrees():
    angle = np.linspace(0, 1.7, 50)
    radius = distortion.fisheye_radius(angle, FISHEYE)
    np.testing.assert_allclose(distortion.fisheye_angle(radius, FISHEYE), angle, atol=1e-12)
    equidistant = np.zeros(4)
    np.testing.assert_array_equal(distortion.fisheye_radius(angle, equidistant), angle)
    assert np.isnan(distortion.fisheye_angle(np.array([3.3]), equidistant)).all()  # over 180


@pytest.mark.parametrize("omega", [0.0, 1e-9, 0.4, 0.93])
def test_field_of_view_model_there_and_back(omega):
    angle = np.linspace(0, 1.5, 40)
    radius = distortion.fov_radius(angle, omega)
    np.testing.assert_allclose(distortion.fov_angle(radius, omega), angle, atol=1e-9)
    assert np.isnan(distortion.fov_radius(np.array([1.6]), omega)).all()
    if omega > 0.1:
        assert np.isnan(distortion.fov_angle(np.array([np.pi / 2 / omega + 0.01]), omega)).all()
