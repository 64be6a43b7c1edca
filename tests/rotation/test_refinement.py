import subprocess
import sys

import numpy as np
import pytest

from visionlab.rotation import so3
from visionlab.rotation.camera import Camera
from visionlab.rotation.inputs import stack_rows
from visionlab.rotation.refinement import predict, refine, residuals

CAMERA = Camera.from_focal(400.0, 480, 270)


def rows_of(rotvec, count, rng, *, noise=0.0, outliers=0.0):
    points = rng.uniform(0, [479, 269], (count, 2))
    plane = CAMERA.normalise(points)
    rows = stack_rows(CAMERA, points, plane, plane)
    rows[2:4] = predict(np.asarray(rotvec), rows) + rng.normal(0, noise / 400, (2, count))
    gross = rng.random(count) < outliers
    rows[2:4, gross] += rng.normal(0, 10 / 400, (2, int(gross.sum())))
    return rows


@pytest.mark.parametrize("angle", [0.0, 0.02, 0.3])
def test_exact_without_noise(angle):
    rng = np.random.default_rng(0)
    truth = angle * np.array([0.6, -0.64, 0.48])
    refined = refine(rows_of(truth, 500, rng), truth + 5e-4, first_scale=0.8)
    np.testing.assert_allclose(refined.rotvec, truth, atol=1e-11)
    assert refined.inliers().all()


@pytest.mark.parametrize("count", [400, 5000])  # above 3,000 the first passes are thinned
@pytest.mark.parametrize("scale", [None, 0.5])
def test_twins_agree(count, scale):
    rng = np.random.default_rng(1)
    truth = np.array([0.02, -0.03, 0.01])
    rows = rows_of(truth, count, rng, noise=0.4, outliers=0.4)
    rows[5] = rng.uniform(0.2, 1.0, count)
    numba, numpy = (
        refine(rows, truth + 1e-3, first_scale=0.8, scale=scale, backend=b)
        for b in ("numba", "numpy")
    )
    # the automatic scale comes from a histogram of 512 bins there, from sorting here
    tolerance = 1e-10 if scale else 2e-6
    np.testing.assert_allclose(numba.rotvec, numpy.rotvec, atol=tolerance)
    np.testing.assert_allclose(numba.sigma, numpy.sigma, atol=2e-3)
    np.testing.assert_allclose(numba.covariance, numpy.covariance, rtol=2e-2)
    np.testing.assert_allclose(numba.error, numpy.error, atol=tolerance * 1000)


def test_sigma_measures_the_noise_and_covariance_the_error():
    rng = np.random.default_rng(2)
    truth = np.array([0.01, 0.02, -0.03])
    standardised = []
    for _ in range(60):
        rows = rows_of(truth, 600, rng, noise=0.3)
        refined = refine(rows, truth, first_scale=0.8)
        assert 0.25 < refined.sigma < 0.35
        error = so3.log(so3.exp(truth).T @ so3.exp(refined.rotvec))
        standardised.append(np.linalg.solve(np.linalg.cholesky(refined.covariance), error))
    # independent noise: unit variance, up to Geman-McClure's efficiency
    assert 0.6 < np.std(standardised) < 1.4


def test_zero_weights_drop_vectors():
    rng = np.random.default_rng(3)
    truth = np.array([0.01, 0.02, -0.03])
    rows = rows_of(truth, 600, rng, noise=0.3)
    rows[2:4, 300:] += 0.02
    rows[5, 300:] = 0
    half = refine(np.ascontiguousarray(rows[:, :300]), truth, first_scale=0.8)
    np.testing.assert_allclose(refine(rows, truth, first_scale=0.8).rotvec, half.rotvec, atol=1e-9)


def test_vectors_in_one_point_fix_nothing():
    rows = np.repeat(rows_of(np.zeros(3), 1, np.random.default_rng(4)), 50, axis=1)
    for backend in ("numba", "numpy"):
        assert refine(rows, np.zeros(3), first_scale=0.8, backend=backend).covariance is None


def test_residuals_are_pixels():
    rows = rows_of(np.zeros(3), 10, np.random.default_rng(5))
    rows[2] += 1 / 400
    np.testing.assert_allclose(residuals(np.zeros(3), rows), [[1.0] * 10, [0.0] * 10], atol=1e-9)


def test_kernels_need_no_scipy():
    """A plain install has none; numba's matrix product and solvers would ask for it at run time."""
    code = (
        "import sys; sys.modules['scipy'] = None; "
        "from visionlab.rotation import RotationEstimator, make_scene; s = make_scene('S0', 0); "
        "print([RotationEstimator(s.camera, refine=r)(s.flow).status.name "
        "for r in ('irls', 'joint')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "['OK', 'OK']\n"
