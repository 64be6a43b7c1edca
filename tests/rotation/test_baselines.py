import importlib.util

import numpy as np
import pytest

from visionlab.rotation import so3
from visionlab.rotation.baselines import BASELINES, baseline, installed, published, published_points
from visionlab.rotation.camera import Camera
from visionlab.rotation.scenes import make_scene

CAMERA = Camera.from_focal(400.0, 480, 270)
TRUTH = np.array([0.012, -0.021, 0.017])


def tracks(rotvec, translation=(0.0, 0.0, 0.0), count=300):
    """Noise-free tracks of points at random depths."""
    rng = np.random.default_rng(0)
    start = rng.uniform([0, 0], [479, 269], (count, 2))
    rays = CAMERA.bearings(start) * rng.uniform(2, 10, (count, 1))
    end = CAMERA.project((rays - translation) @ so3.exp(rotvec))
    seen = np.isfinite(end).all(1)
    return start[seen], end[seen]


@pytest.mark.parametrize("name", ["least_squares", "huber", "two_point", "homography"])
def test_rotation_only_methods_are_exact_on_pure_rotation(name):
    estimate = baseline(name)(*tracks(TRUTH), CAMERA)
    assert so3.angle_between(estimate, TRUTH) < 1e-6


@pytest.mark.parametrize(
    "name",
    [
        "essential_ransac",
        "essential_magsac",
        pytest.param(
            "poselib",
            marks=pytest.mark.skipif(
                importlib.util.find_spec("poselib") is None, reason="poselib is not installed"
            ),
        ),
    ],
)
def test_pose_methods_are_exact_with_parallax(name):
    estimate = baseline(name)(*tracks(TRUTH, (0.6, 0.2, 0.3)), CAMERA)
    assert so3.angle_between(estimate, TRUTH) < 1e-4


def test_published_rule_is_within_a_bin():
    points = published_points(CAMERA)
    assert len(points) == 32 * 18
    scene = make_scene("S0", 0, seed=1)
    moved = points + scene.flow[::15, ::15].reshape(-1, 2)
    estimate = published(points, moved, scene.camera)
    assert np.abs(estimate - scene.rotvec).max() < 2e-3
    np.testing.assert_allclose(estimate * 1000, np.round(estimate * 1000), atol=1e-9)


def test_published_rule_without_votes_is_zero():
    points = published_points(CAMERA)
    assert published(points, points + 1000.0, CAMERA).tolist() == [0, 0, 0]


def test_zero_and_registry():
    assert baseline("zero")(*tracks(TRUTH), CAMERA).tolist() == [0, 0, 0]
    assert set(installed()) >= set(BASELINES.names()) - {"poselib"}
    for name in BASELINES.names():
        assert callable(baseline(name))
    with pytest.raises(ValueError, match=r"no baseline 'hubr'. Did you mean 'huber'"):
        baseline("hubr")
