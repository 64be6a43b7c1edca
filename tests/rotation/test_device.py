import numpy as np
import pytest
import torch

from visionlab.rotation import device, so3
from visionlab.rotation.camera import Camera
from visionlab.rotation.estimator import RotationEstimator
from visionlab.rotation.scenes import make_scene

CUDA = pytest.param("cuda", marks=pytest.mark.gpu)
DEVICES = ["cpu", CUDA]


def flows_of(*names, seed=3):
    scenes = [make_scene(name, index=i, seed=seed) for i, name in enumerate(names)]
    return scenes[0].camera, np.stack([scene.flow for scene in scenes])


def assert_same(estimates, expected):
    for i, (one, other) in enumerate(zip(estimates, expected)):
        assert so3.angle_between(one.rotvec, other.rotvec) < 1e-5, i
        assert one.status == other.status, (i, one, other)
        assert one.message.split(":")[0] == other.message.split(":")[0]
        assert one.votes == other.votes, i  # bit-equal votes
        assert one.peak_share == other.peak_share
        assert one.max_angle == other.max_angle
        np.testing.assert_allclose(one.inlier_ratio, other.inlier_ratio, atol=0.01)
        np.testing.assert_allclose(one.sigma, other.sigma, rtol=0.03)
        np.testing.assert_array_equal(one.points, other.points)
        assert one.inliers.shape == other.inliers.shape
        assert (one.inliers != other.inliers).mean() < 0.01
        assert (one.second is None) == (other.second is None), i


@pytest.mark.parametrize("where", DEVICES)
@pytest.mark.parametrize("options", [{}, {"geometry": "linear"}, {"refine": "none"}], ids=str)
def test_batches_equal_single_frames(where, options):
    camera, flows = flows_of("S0", "S1", "S2", "S2", "S3")
    estimator = RotationEstimator(camera, **options)
    estimates = device.estimate_batch(estimator, torch.from_numpy(flows).to(where))
    expected = [estimator(flow) for flow in flows]
    if options.get("refine") == "none":
        for one, other in zip(estimates, expected):
            np.testing.assert_array_equal(one.rotvec, other.rotvec)
            assert (one.votes, one.status) == (other.votes, other.status)
        return
    assert_same(estimates, expected)


@pytest.mark.parametrize("where", DEVICES)
def test_masks_and_weights(where):
    camera, flows = flows_of("S0", "S1", "S1", "S3")
    rng = np.random.default_rng(0)
    masks = rng.random(flows.shape[:3]) < 0.7
    weights = rng.uniform(0, 3, flows.shape[:3])
    flows[~masks] = np.nan  # what a mask hides may be anything
    estimator = RotationEstimator(camera)
    on_device = torch.from_numpy(flows).to(where)
    signed = masks.astype(np.int8) * -1  # nonzero is what counts
    for given in (None, weights):
        estimates = device.estimate_batch(estimator, on_device, signed, weights=given)
        expected = [
            estimator(flows[i], masks[i], weights=None if given is None else given[i])
            for i in range(len(flows))
        ]
        assert_same(estimates, expected)


def test_what_the_range_does_not_hold_goes_through_the_estimator(monkeypatch):
    camera, flows = flows_of("S0", "S0", "S0", "S0")
    far = make_scene("S0", index=9, angle=0.12)
    flows[1] = 0.0  # duplicate frames
    flows[2] = far.flow  # outside the asked range: found in a wider one
    masks = np.ones(flows.shape[:3], bool)
    masks[3] = False
    masks[3, 7, :200] = True  # hardly any vectors left
    estimator = RotationEstimator(camera)
    estimates = device.estimate_batch(estimator, torch.from_numpy(flows), masks)
    assert [str(e.status) for e in estimates] == ["ok", "degenerate", "ok", "low_texture"]
    assert "range widened" in estimates[2].message
    assert so3.angle_between(estimates[2].rotvec, far.rotvec) < 1e-3
    assert_same(estimates[:1], [estimator(flows[0])])


def test_priors_are_used():
    camera, flows = flows_of("S0", "S0")
    far = make_scene("S0", index=9, angle=0.12)
    flows[1] = far.flow
    estimator = RotationEstimator(camera, widen=False)
    priors = [None, far.rotvec]
    estimates = device.estimate_batch(estimator, torch.from_numpy(flows), priors=priors)
    assert so3.angle_between(estimates[1].rotvec, far.rotvec) < 1e-3


def test_two_motions_are_looked_at_twice():
    camera, flows = flows_of("S0", "S0", "S0")
    flows[0, :, 230:] = flows[1, :, 230:]  # two rotations, one in each half of the image
    flows[2, :, 300:] = flows[1, :, 300:]
    estimator = RotationEstimator(camera)
    estimates = device.estimate_batch(estimator, torch.from_numpy(flows))
    expected = [estimator(flow) for flow in flows]
    assert expected[0].second is not None
    assert_same(estimates, expected)


def test_distorted_cameras():
    camera, flows = flows_of("S0", "S1")
    bent = Camera(
        *(camera.fx, camera.fy, camera.cx, camera.cy, camera.width, camera.height),
        distortion=(-0.05, 0.01, 0.001, -0.001),
    )
    estimator = RotationEstimator(bent)
    estimates = device.estimate_batch(estimator, torch.from_numpy(flows))
    assert_same(estimates, [estimator(flow) for flow in flows])


def test_the_estimator_sends_batches_to_the_gpu(monkeypatch):
    camera, flows = flows_of("S0", "S1")
    estimator = RotationEstimator(camera)
    expected = estimator.batch(flows)
    seen = []
    batch = device.estimate_batch

    def spy(*arguments, **options):
        seen.append(options)
        return batch(*arguments, **options)

    monkeypatch.setattr(device, "estimate_batch", spy)
    monkeypatch.setattr(type(estimator.solver), "_backend", lambda solver, on_gpu: "cuda")
    estimates = estimator.batch(torch.from_numpy(flows), priors=[None, None])
    assert seen == [{"weights": None, "priors": [None, None]}]
    assert_same(estimates, expected)


def test_chunks_change_nothing(monkeypatch):
    camera, flows = flows_of("S0", "S1", "S0")
    estimator = RotationEstimator(camera)
    whole = device.estimate_batch(estimator, torch.from_numpy(flows))
    monkeypatch.setattr(device, "CHUNK", 2)
    parts = device.estimate_batch(estimator, torch.from_numpy(flows))
    for one, other in zip(whole, parts):
        np.testing.assert_allclose(one.rotvec, other.rotvec, atol=1e-12)
    assert device.estimate_batch(estimator, torch.from_numpy(flows[:0])) == []


def test_the_doors_messages_are_the_estimators():
    camera, flows = flows_of("S0", "S0")
    estimator = RotationEstimator(camera)
    flows[1, 5, 5] = np.inf
    with pytest.raises(ValueError, match=r"flow holds 1 non-finite vectors"):
        device.estimate_batch(estimator, torch.from_numpy(flows))
    flows[1, 5, 5] = 0
    masks = np.ones(flows.shape[:3])
    masks[1] = 0
    with pytest.raises(ValueError, match=r"the mask hides all"):
        device.estimate_batch(estimator, torch.from_numpy(flows), masks)
    weights = np.ones(flows.shape[:3])
    weights[1, 0, 0] = -1
    with pytest.raises(ValueError, match=r"weights must be finite and not negative"):
        device.estimate_batch(estimator, torch.from_numpy(flows), weights=weights)
    with pytest.raises(TypeError, match=r"flow must be .* floating point px, got torch\.int64"):
        device.estimate_batch(estimator, torch.from_numpy(flows).long())
    with pytest.raises(ValueError, match=r"flow is 479x270 px but the camera 480x270"):
        device.estimate_batch(estimator, torch.from_numpy(flows[:, :, 1:]))
