import numpy as np
import pytest

from visionlab.rotation import so3
from visionlab.rotation.evaluation import (
    align,
    bootstrap_interval,
    evaluate,
    format_table,
    step_errors,
    summarise,
    table_rows,
    window_errors,
)
from visionlab.rotation.trajectory import Trajectory

RNG = np.random.default_rng


def test_error_is_the_angle_of_the_rotation_between() -> None:
    rng = RNG(0)
    a, b = rng.normal(size=(2, 50, 3))
    matrices = np.swapaxes(so3.exp(a), 1, 2) @ so3.exp(b)
    slow = np.degrees(np.arccos(np.clip((np.trace(matrices, axis1=1, axis2=2) - 1) / 2, -1, 1)))
    assert step_errors(a, b) == pytest.approx(slow, abs=1e-6)


def test_the_opposite_sign_scores_twice_the_motion() -> None:
    steps = np.full((4, 3), 0.01)
    assert step_errors(-steps, steps) == pytest.approx(
        np.degrees(2 * np.linalg.norm(steps, axis=1))
    )


def test_statistics_by_hand() -> None:
    errors = np.array([0.01, 0.06, 0.15, 2.0, 100.0])
    s = summarise("x", errors, rng=RNG(0), drift=[1.0, 3.0])
    assert (s.count, s.failures, s.flips, s.drift) == (5, 2, 1, 2.0)
    assert s.shares == {0.05: 0.2, 0.1: 0.4, 0.2: 0.6}
    assert s.median == 0.15
    assert s.mean == pytest.approx(errors.mean())
    assert s.max == 100


def test_zero_and_least_squares_stand_beside_the_estimate() -> None:
    steps = RNG(1).normal(size=(30, 3)) * 0.02
    truth = Trajectory.from_steps(steps, np.arange(31) / 25)
    columns = {f"ls_w{a}": [np.nan, *(steps[:, i] + 0.001)] for i, a in enumerate("xyz")}
    estimate = Trajectory(truth.frames, truth.times, truth.quaternions, columns)
    rows = {s.name: s for s in evaluate(estimate, truth)}
    assert list(rows) == ["estimate", "zero", "least squares"]
    assert rows["estimate"].max < 1e-10
    assert rows["zero"].mean == pytest.approx(np.degrees(np.linalg.norm(steps, axis=1)).mean())
    assert rows["least squares"].mean == pytest.approx(np.degrees(0.001 * 3**0.5), rel=0.02)


def test_drift_over_a_second_grows_with_a_bias() -> None:
    truth = Trajectory.from_steps(np.zeros((50, 3)), np.arange(51) / 25)
    drift = window_errors(np.tile([0.0, np.radians(0.1), 0.0], (50, 1)), truth)
    assert len(drift) == 26
    assert drift == pytest.approx(2.5)


def test_windows_across_a_cut_are_left_out() -> None:
    truth = Trajectory.from_steps(np.zeros((50, 3)), np.arange(51) / 25)
    steps = np.zeros((50, 3))
    steps[25] = np.nan
    assert len(window_errors(steps, truth)) == 1  # the 25 steps before the cut


def test_cut_frames_count_for_no_method() -> None:
    steps = np.full((10, 3), 0.01)
    truth = Trajectory.from_steps(steps, np.arange(11) / 25)
    status = ["start"] + ["ok"] * 4 + ["cut"] + ["ok"] * 5
    estimate = Trajectory(truth.frames, truth.times, truth.quaternions, {"status": status})
    assert [s.count for s in evaluate(estimate, truth)] == [9, 9]


def test_bootstrap_covers_the_mean() -> None:
    rng = RNG(2)
    inside = 0
    for _ in range(100):
        low, high = bootstrap_interval(rng.normal(1, 1, 60), np.mean, rng=rng, draws=300)
        inside += low <= 1 <= high
    assert 88 <= inside <= 99


def test_blocks_widen_the_interval_of_errors_that_hang_together() -> None:
    values = np.repeat(RNG(3).normal(size=20), 10)
    plain = bootstrap_interval(values, np.mean, rng=RNG(0))
    blocks = bootstrap_interval(values, np.mean, rng=RNG(0), block=10)
    assert blocks[1] - blocks[0] > 2 * (plain[1] - plain[0])


def test_same_seed_same_interval() -> None:
    truth = Trajectory.from_steps(RNG(4).normal(size=(30, 3)) * 0.02, np.arange(31) / 25)
    still = Trajectory.from_steps(np.zeros((30, 3)), np.arange(31) / 25)
    first, again = (evaluate(still, truth, seed=5)[0] for _ in range(2))
    assert first.mean_interval == again.mean_interval


def test_a_range_of_frames_is_judged_by_its_own_truth() -> None:
    steps = RNG(5).normal(size=(20, 3)) * 0.02
    truth = Trajectory.from_steps(steps, np.arange(21) / 25)
    part = Trajectory.from_steps(steps[5:12], truth.times[5:13], frames=np.arange(5, 13))
    assert evaluate(part, truth)[0].max < 1e-10


def test_association_by_time_interpolates() -> None:
    truth = Trajectory.from_steps(np.tile([0, 0, 0.01], (40, 1)), np.arange(41) / 100)
    estimate = Trajectory.from_steps(np.tile([0, 0, 0.025], (10, 1)), 0.01 + np.arange(11) / 40)
    assert evaluate(estimate, truth, by="time")[0].max < 1e-9


def test_truth_of_other_length_is_refused() -> None:
    estimate = Trajectory.from_steps(np.zeros((9, 3)), np.arange(10))
    truth = Trajectory.from_steps(np.zeros((7, 3)), np.arange(8))
    with pytest.raises(ValueError, match="has 10 frames, the ground truth 8, and frame 8"):
        align(estimate, truth)


def test_one_frame_is_no_estimate() -> None:
    one = Trajectory(np.array([0]), np.array([0.0]), np.array([[0, 0, 0, 1.0]]))
    with pytest.raises(ValueError, match="1 frame; at least two"):
        evaluate(one, one)


def test_association_must_be_known() -> None:
    one = Trajectory.from_steps(np.zeros((2, 3)), np.arange(3))
    with pytest.raises(ValueError, match="'frame' or 'time'"):
        align(one, one, by="order")


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match="rotation vectors"):
        step_errors(np.zeros((3, 3)), np.zeros((4, 3)))


def test_nothing_to_judge_is_said() -> None:
    with pytest.raises(ValueError, match="no frame of 'x'"):
        summarise("x", [], rng=RNG(0))


def test_table_is_markdown_with_equal_widths() -> None:
    truth = Trajectory.from_steps(np.full((30, 3), 0.01), np.arange(31) / 25)
    text = format_table(table_rows(evaluate(truth, truth)))
    lines = text.splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[0].startswith("| method")
    assert set(lines[1]) <= set("|-: ")
