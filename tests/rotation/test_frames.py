import numpy as np
import pytest

from visionlab.rotation.estimate import Status
from visionlab.rotation.estimator import RotationEstimator
from visionlab.rotation.frames import can_solve, estimate_frames
from visionlab.rotation.scenes import make_scene

SCENES = [make_scene(f"S{i}", i, seed=12) for i in (0, 1, 2, 3)]
CAMERA = SCENES[0].camera
FLOWS = np.stack([s.flow for s in SCENES] * 2)


@pytest.mark.parametrize("search", ["full", "pyramid"])
def test_kernel_equals_single_calls(search):
    estimator = RotationEstimator(CAMERA, search=search, num_threads=2)
    assert can_solve(estimator, FLOWS)
    for flow, fast in zip(FLOWS, estimate_frames(estimator, FLOWS), strict=True):
        single = estimator(flow)
        assert (fast.votes, fast.status, fast.message) == (
            single.votes,
            single.status,
            single.message,
        )
        np.testing.assert_allclose(fast.rotvec, single.rotvec, atol=1e-9)
        np.testing.assert_allclose(fast.sigma, single.sigma, atol=1e-6)
        np.testing.assert_allclose(fast.covariance, single.covariance, rtol=1e-4, atol=1e-15)
        assert (fast.inliers != single.inliers).mean() < 1e-3
        assert fast.inlier_ratio == pytest.approx(single.inlier_ratio, abs=1e-3)
        assert fast.peak_share == single.peak_share
        assert (fast.second is None) == (single.second is None)
        if single.second is not None:
            np.testing.assert_allclose(fast.second, single.second, atol=1e-6)


def test_what_the_kernel_cannot_settle_goes_through_the_single_call():
    flows = FLOWS.astype(np.float64)
    flows[0] = 0
    flows[1] = make_scene("S0", 0, seed=3, angle=0.2).flow
    estimator = RotationEstimator(CAMERA, num_threads=2)
    settled = estimate_frames(estimator, flows)
    assert [s is None for s in settled[:3]] == [True, True, False]
    estimates = estimator.batch(flows)
    assert estimates[0].status is Status.DEGENERATE
    assert "widened" in estimates[1].message
    for one, flow in zip(estimates, flows):
        np.testing.assert_allclose(one.rotvec, estimator(flow).rotvec, atol=1e-9)
    flows[2, 5, 5] = np.nan
    with pytest.raises(ValueError, match="flow holds 1 non-finite vectors"):
        estimator.batch(flows)


def test_settings_it_does_not_know():
    assert not can_solve(RotationEstimator(CAMERA, refine="joint"), FLOWS)
    assert not can_solve(RotationEstimator(CAMERA, backend="numpy"), FLOWS)
    assert not can_solve(RotationEstimator(CAMERA), FLOWS[:, :100])
    assert not can_solve(RotationEstimator(CAMERA), FLOWS.astype(np.float16))
