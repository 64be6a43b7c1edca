import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from visionlab.rotation import so3

RNG = np.random.default_rng(0)
AXES = RNG.normal(size=(200, 3))
AXES /= np.linalg.norm(AXES, axis=1, keepdims=True)
ANGLES = np.concatenate([10.0 ** RNG.uniform(-9, 0, 150), RNG.uniform(1, np.pi - 1e-6, 50)])
ROTVECS = AXES * ANGLES[:, None]


def test_exp_log_quaternion_agree_with_scipy():
    oracle = Rotation.from_rotvec(ROTVECS)
    np.testing.assert_allclose(so3.exp(ROTVECS), oracle.as_matrix(), atol=1e-14)
    np.testing.assert_allclose(so3.log(oracle.as_matrix()), ROTVECS, atol=1e-9)
    np.testing.assert_allclose(
        so3.quaternion_from_rotvec(ROTVECS), oracle.as_quat(True), atol=1e-14
    )
    np.testing.assert_allclose(so3.rotvec_from_quaternion(-oracle.as_quat()), ROTVECS, atol=1e-12)
    np.testing.assert_allclose(
        so3.matrix_from_quaternion(oracle.as_quat()), oracle.as_matrix(), atol=1e-13
    )


@pytest.mark.parametrize("axis", range(3))
def test_log_at_half_turn_and_identity(axis):
    half_turn = np.zeros(3)
    half_turn[axis] = np.pi
    np.testing.assert_allclose(np.abs(so3.log(so3.exp(half_turn))), half_turn, atol=1e-12)
    assert so3.log(np.eye(3)).tolist() == [0, 0, 0]
    assert so3.exp(np.zeros(3)).tolist() == np.eye(3).tolist()


def test_quarter_turn_by_hand():
    # about z (forward) by 90 degrees: x goes to y
    np.testing.assert_allclose(so3.exp([0, 0, np.pi / 2]) @ [1, 0, 0], [0, 1, 0], atol=1e-15)


def test_angle_between_is_geodesic():
    a, b = Rotation.from_rotvec(ROTVECS[:100]), Rotation.from_rotvec(ROTVECS[100:])
    np.testing.assert_allclose(
        so3.angle_between(a.as_rotvec(), b.as_rotvec()), (a.inv() * b).magnitude(), atol=1e-9
    )


@pytest.mark.parametrize("convention", so3.CONVENTIONS)
def test_conventions_are_their_own_inverse(convention):
    np.testing.assert_array_equal(
        so3.convert(so3.convert(ROTVECS, convention), convention), ROTVECS
    )


def test_conventions_as_matrices():
    camera = so3.exp(ROTVECS)
    flip = np.diag([1.0, -1.0, -1.0])
    turn = np.diag([-1.0, -1.0, 1.0])
    np.testing.assert_allclose(
        so3.exp(so3.convert(ROTVECS, "opengl")), flip @ camera @ flip, atol=1e-13
    )
    inverse = np.swapaxes(camera, -1, -2)
    np.testing.assert_allclose(so3.exp(so3.convert(ROTVECS, "points")), inverse, atol=1e-13)
    np.testing.assert_allclose(
        so3.exp(so3.convert(ROTVECS, "buss")), turn @ inverse @ turn, atol=1e-13
    )


def test_messages():
    with pytest.raises(ValueError, match=r"no convention 'opngl'. Did you mean 'opengl'"):
        so3.convert(np.zeros(3), "opngl")
    with pytest.raises(
        ValueError, match=r"expected unit quaternions .* norms from 2 to 2; normalise"
    ):
        so3.rotvec_from_quaternion([0, 0, 0, 2.0])
    with pytest.raises(ValueError, match=r"shape \(\.\.\., 3, 3\), got \(2, 3\)"):
        so3.log(np.zeros((2, 3)))
