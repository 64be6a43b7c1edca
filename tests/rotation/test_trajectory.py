import numpy as np
import pytest

from visionlab.rotation import so3
from visionlab.rotation.trajectory import Trajectory, advance, relative


def walk(count: int = 20, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, 3)) * 0.05, np.arange(count + 1) / 10


def test_chained_steps_come_back_out() -> None:
    steps, times = walk()
    assert Trajectory.from_steps(steps, times).steps == pytest.approx(steps, abs=1e-12)


def test_orientation_is_the_product_of_the_steps() -> None:
    steps, times = walk(5)
    product = np.eye(3)
    for step in steps:
        product = product @ so3.exp(step)
    last = Trajectory.from_steps(steps, times).quaternions[-1]
    assert so3.matrix_from_quaternion(last) == pytest.approx(product, abs=1e-12)


def test_a_cut_keeps_the_orientation_and_starts_a_segment() -> None:
    steps, times = walk(4)
    steps[1] = np.nan
    chain = Trajectory.from_steps(steps, times)
    assert chain.columns["status"] == ["start", "ok", "cut", "ok", "ok"]
    assert chain.known.tolist() == [True, False, True, True]
    assert np.isnan(chain.steps[1]).all()
    assert chain.segments.tolist() == [0, 0, 1, 1, 1]
    assert chain.quaternions[1] == pytest.approx(chain.quaternions[2])


def test_rates_use_the_times_of_a_variable_rate() -> None:
    chain = Trajectory.from_steps([[0, 0.1, 0], [0, 0.1, 0]], [0.0, 0.1, 0.3])
    assert chain.rates[:, 1] == pytest.approx([1.0, 0.5])


def test_interpolation_between_frames_is_spherical() -> None:
    chain = Trajectory.from_steps([[0, 0, 1.0], [0, 0, 1.0]], [0.0, 1.0, 3.0])
    turned = relative(chain.quaternions[0], chain.at([0.25, 1.0, 2.0, 3.0]))
    assert turned[:, 2] == pytest.approx([0.25, 1.0, 1.5, 2.0])


def test_interpolation_outside_is_refused() -> None:
    chain = Trajectory.from_steps([[0, 0, 1.0]], [0.0, 1.0])
    with pytest.raises(ValueError, match="reach outside the trajectory"):
        chain.at([1.5])


def test_mounting_turns_a_body_into_a_camera() -> None:
    steps, times = walk(3)
    mount = so3.exp([0.4, -1.2, 0.3])
    camera = Trajectory.from_steps(steps, times).turned(mount)
    assert camera.steps == pytest.approx(steps @ mount, abs=1e-12)  # R_bc^T w


def test_advance_stays_of_unit_length() -> None:
    q = np.array([0.0, 0.0, 0.0, 1.0])
    for _ in range(1000):
        q = advance(q, [0.1, 0.2, -0.3])
    assert np.linalg.norm(q) == pytest.approx(1, abs=1e-15)


UNIT = [0.0, 0.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("frames", "times", "quaternions", "message"),
    [
        ([0, 1], [0, 1], [UNIT, [0.0, 0.0, 0.0, 2.0]], "quaternion 1 has norm 2"),
        ([0, 1], [0, 1], [UNIT, [np.nan] * 4], "quaternion 1 has norm nan"),
        ([0, 1], [0, 1], [[0.0, 0.0, 1.0]] * 2, r"shape \(N, 4\)"),
        ([0], [0, 1], [UNIT] * 2, "frames 1"),
        ([0, 1], [0, 1, 2], [UNIT] * 2, "times 3"),
        ([0, 1], [0, 0], [UNIT] * 2, "times must rise"),
        ([1, 0], [0, 1], [UNIT] * 2, "frame numbers must rise"),
    ],
)
def test_what_is_no_trajectory_is_refused(frames, times, quaternions, message) -> None:
    with pytest.raises(ValueError, match=message):
        Trajectory(np.array(frames), np.array(times), np.array(quaternions))
