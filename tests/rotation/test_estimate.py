"""What an estimate says of itself, forwards and backwards."""

import numpy as np
import pytest

from visionlab.rotation import so3
from visionlab.rotation.estimate import RotationEstimate, Status
from visionlab.rotation.estimator import RotationEstimator
from visionlab.rotation.scenes import make_scene


def test_inverse_and_conventions():
    scene = make_scene("S4", 1, seed=31)
    estimate = RotationEstimator(scene.camera, refine="joint")(scene.flow)
    back = estimate.inverse()
    np.testing.assert_allclose(back.matrix @ estimate.matrix, np.eye(3), atol=1e-14)
    np.testing.assert_allclose(back.inverse().heading, estimate.heading, atol=1e-12)
    np.testing.assert_allclose(back.inverse().covariance, estimate.covariance, atol=1e-15)
    np.testing.assert_array_equal(estimate.to("points"), -estimate.rotvec)
    np.testing.assert_allclose(so3.rotvec_from_quaternion(estimate.quaternion), estimate.rotvec)


def test_matrix_quaternion_and_angle_tell_of_one_rotation():
    estimate = RotationEstimate(rotvec=np.array([0.0, 0.0, np.pi / 2]))
    np.testing.assert_allclose(estimate.matrix, [[0, -1, 0], [1, 0, 0], [0, 0, 1]], atol=1e-15)
    np.testing.assert_allclose(estimate.quaternion, [0, 0, 0.5**0.5, 0.5**0.5])
    assert estimate.angle == pytest.approx(np.pi / 2)
    assert estimate.ok
    assert not RotationEstimate(rotvec=np.zeros(3), status=Status.AMBIGUOUS).ok


def test_the_way_back_drops_what_refers_to_positions():
    estimate = RotationEstimate(
        rotvec=np.array([0.1, -0.2, 0.3]), points=np.zeros((4, 2)), inliers=np.ones(4, bool),
        static=np.ones(4), second=np.array([0.3, 0.0, 0.0]), votes=7,
    )  # fmt: skip
    back = estimate.inverse()
    assert back.points is back.inliers is back.static is None
    np.testing.assert_array_equal(back.second, -estimate.second)
    assert back.votes == 7
