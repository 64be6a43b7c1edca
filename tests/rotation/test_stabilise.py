from itertools import pairwise

import numpy as np
import pytest

from visionlab.rotation import so3
from visionlab.rotation.camera import Camera
from visionlab.rotation.flow import LucasKanade
from visionlab.rotation.sequences import VirtualCamera
from visionlab.rotation.stabilise import plan, smoothed, turn, write_stabilised
from visionlab.rotation.trajectory import Trajectory, relative

PINHOLE = Camera.from_focal(210.0, 240, 136)


def shaky(count: int = 60) -> Trajectory:
    rng = np.random.default_rng(0)
    pan = np.stack([0 * np.arange(count), 0.01 * np.arange(count), 0 * np.arange(count)], 1)
    quaternions = so3.quaternion_from_rotvec(pan + 0.01 * rng.normal(size=(count, 3)))
    return Trajectory(np.arange(count), np.arange(count) / 25, quaternions)


def test_smoothing_keeps_the_pan_and_drops_the_shake() -> None:
    chain = shaky()
    steady = smoothed(chain, seconds=0.3)
    inner = relative(steady[:-1], steady[1:])[20:-20]
    assert inner[:, 1].mean() == pytest.approx(0.01, abs=0.002)
    assert inner.std(0).max() < 0.2 * chain.steps.std(0).max()


def test_smoothing_by_hand_on_one_axis() -> None:
    """About a single axis the mean on SO(3) is the weighted mean of the angles."""
    angles = np.random.default_rng(1).normal(size=30) * 0.1
    chain = Trajectory(
        np.arange(30),
        np.arange(30) / 10,
        so3.quaternion_from_rotvec(np.outer(angles, [0, 0, 1.0])),
    )
    gap = chain.times[:, None] - chain.times
    weight = np.exp(-0.5 * (gap / 0.2) ** 2) * (np.abs(gap) <= 0.6 + 1e-9)
    wanted = (weight * angles).sum(1) / weight.sum(1)
    got = so3.rotvec_from_quaternion(smoothed(chain, seconds=0.2))[:, 2]
    assert got == pytest.approx(wanted, abs=1e-3)


def test_windows_end_at_cuts() -> None:
    steps = np.zeros((20, 3))
    steps[9] = np.nan
    still = Trajectory.from_steps(steps, np.arange(21) / 25)
    jump = so3.multiply(still.quaternions, so3.quaternion_from_rotvec([0, 0.5, 0]))
    both = np.where(np.arange(21)[:, None] < 10, still.quaternions, jump)
    chain = Trajectory(still.frames, still.times, both, still.columns)
    assert smoothed(chain, seconds=1.0) == pytest.approx(both, abs=1e-12)


@pytest.mark.parametrize(
    "camera",
    [
        PINHOLE,
        Camera(210.0, 214.0, 118.0, 70.0, 240, 136, (-0.2, 0.05, 1e-3, -1e-3)),
        Camera(110.0, 110.0, 119.5, 67.5, 240, 136, (0.01, 0.0, 0.0, 0.0), "fisheye"),
    ],
    ids=["pinhole", "brown_conrady", "fisheye"],
)
def test_no_border_is_left_empty(camera) -> None:
    chosen = plan(shaky(), camera, seconds=0.3, max_zoom=1.4)
    white = np.full((136, 240), 255, np.uint8)
    for correction in chosen.corrections:
        view = turn(white, chosen, camera, correction)
        assert view[2:-2, 2:-2].min() == 255
    assert 1 <= chosen.zoom <= 1.4  # the fisheye sees more than the pinhole shows


def test_a_zoom_that_does_not_suffice_weakens_the_correction() -> None:
    chosen = plan(shaky(), PINHOLE, seconds=0.3, max_zoom=1.01)
    assert chosen.zoom == 1.01
    assert 0 < chosen.strength < 0.6


def test_the_steady_video_is_steady(texture, tmp_path) -> None:
    """Tracked pixels of the written video move far less than those of the source."""
    import cv2

    clip = VirtualCamera(texture, size=(240, 136), focal=210.0, frames=40, seed=3, peak_deg=2.0)
    chosen = plan(clip.truth, clip.camera, seconds=10.0)
    path = tmp_path / "steady.avi"
    write_stabilised(clip.frames(), chosen, clip.camera, path, fps=25)
    capture = cv2.VideoCapture(str(path))
    steady = [cv2.cvtColor(capture.read()[1], cv2.COLOR_BGR2GRAY) for _ in range(40)]

    def motion(frames: list[np.ndarray]) -> float:
        tracks = [LucasKanade()(a, b) for a, b in pairwise(frames)]
        return float(np.nanmedian([np.abs(t.points1 - t.points0) for t in tracks]))

    assert chosen.strength == 1.0
    assert motion(steady) < 0.1 * motion([f.image for f in clip.frames()])
    assert [p.name for p in tmp_path.iterdir()] == ["steady.avi"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: plan(shaky(), PINHOLE, seconds=0), "seconds of smoothing must be positive"),
        (lambda p: plan(shaky(), PINHOLE, max_zoom=0.5), "max_zoom must be at least 1"),
        (
            lambda p: write_stabilised([], plan(shaky(), PINHOLE), PINHOLE, p / "a.xyz", fps=25),
            "write videos as .mp4",
        ),
        (
            lambda p: write_stabilised([], plan(shaky(), PINHOLE), PINHOLE, p / "a.mp4", fps=25),
            "no frame to stabilise",
        ),
    ],
)
def test_bad_requests_get_one_sentence(call, message, tmp_path) -> None:
    with pytest.raises(ValueError, match=message):
        call(tmp_path)
