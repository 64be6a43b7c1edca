"""The estimator end to end: every camera, every refinement, every verdict."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from visionlab.rotation import so3
from visionlab.rotation.camera import Camera
from visionlab.rotation.estimate import RotationEstimate, Status
from visionlab.rotation.estimator import RotationEstimator
from visionlab.rotation.scenes import make_scene

CAMERA = Camera.from_focal(300.0, 320, 180)


def pure_flow(rotvec, camera=CAMERA):
    """Noise-free flow (H, W, 2) of a camera rotation, through the full camera model."""
    x, y = np.meshgrid(np.arange(camera.width), np.arange(camera.height))
    pixels = np.stack([x, y], -1).astype(np.float64)
    moved = camera.project(camera.bearings(pixels) @ so3.exp(rotvec))
    return moved - pixels


def degrees_off(estimate, truth):
    return float(np.degrees(so3.angle_between(estimate.rotvec, truth)))


@pytest.mark.parametrize(
    "camera",
    [
        CAMERA,
        Camera(310.0, 290.0, 170.3, 80.2, 321, 181),
        Camera(310.0, 300.0, 163.0, 88.0, 320, 180, (-0.25, 0.08, 1e-3, -5e-4)),
        Camera(170.0, 171.0, 160.0, 90.0, 320, 180, (0.02, -0.01, 0.003, -0.001), "fisheye"),
        Camera(250.0, 250.0, 159.5, 89.5, 320, 180, (0.8,), "fov"),
    ],
    ids=["pinhole", "off-centre", "radtan", "fisheye", "fov"],
)
@pytest.mark.parametrize("refine", ["irls", "joint"])
def test_exact_for_every_camera(camera, refine):
    truth = np.array([0.02, -0.03, 0.015])
    flow = pure_flow(truth, camera)
    mask = np.isfinite(flow).all(-1)
    estimate = RotationEstimator(camera, refine=refine)(np.nan_to_num(flow), mask)
    assert estimate.ok
    assert degrees_off(estimate, truth) < 1e-4


@pytest.mark.parametrize("angle_deg", [0.01, 1.0, 3.9, 8.0, 12.0, 15.0])
def test_large_rotations_are_as_accurate_as_small_ones(angle_deg):
    truth = np.radians(angle_deg) * np.array([0.5, 0.8, 0.33]) / np.linalg.norm([0.5, 0.8, 0.33])
    estimate = RotationEstimator(CAMERA)(pure_flow(truth))
    assert estimate.ok
    assert degrees_off(estimate, truth) < 1e-5
    assert ("widened" in estimate.message) == (angle_deg > 5)


def test_backends_and_searches_agree():
    scene = make_scene("S2", 0, seed=8)
    answers = [
        RotationEstimator(scene.camera, search=search, backend=backend)(scene.flow)
        for search, backend in (("full", "numba"), ("pyramid", "numba"), ("full", "numpy"))
    ]
    assert len({a.votes for a in answers}) == 1
    for other in answers[1:]:
        np.testing.assert_allclose(other.rotvec, answers[0].rotvec, atol=3e-6)


def test_numpy_torch_and_dtypes_agree():
    scene = make_scene("S1", 0, seed=8)
    estimator = RotationEstimator(scene.camera)
    expected = estimator(scene.flow)
    for flow in (torch.from_numpy(scene.flow), scene.flow.astype(np.float64), scene.flow.copy("F")):
        np.testing.assert_array_equal(estimator(flow).rotvec, expected.rotvec)
    half = estimator(torch.from_numpy(scene.flow).half())
    assert so3.angle_between(half.rotvec, expected.rotvec) < 1e-3


def test_batch_equals_single_calls():
    flows = np.stack([make_scene("S1", i, seed=8).flow for i in range(4)])
    mask = np.ones(flows.shape[:3], bool)
    mask[:, :, :100] = False
    camera = make_scene("S1", 0, seed=8).camera
    singles = [RotationEstimator(camera)(f, m) for f, m in zip(flows, mask)]
    for threads in (1, 2):
        batch = RotationEstimator(camera, num_threads=threads).batch(flows, mask)
        for one, other in zip(singles, batch):
            np.testing.assert_array_equal(one.rotvec, other.rotvec)
            assert one.status == other.status


def test_sparse_tracks_with_lost_ones():
    scene = make_scene("S1", 0, seed=8)
    estimator = RotationEstimator(scene.camera)
    points = estimator.voting_points
    rows, columns = points.astype(int).T[::-1]
    moved = points + scene.flow[rows, columns]
    moved[::7] = np.nan
    estimate = estimator.from_points(points, moved)
    assert estimate.ok
    assert degrees_off(estimate, scene.rotvec) < 0.15
    assert len(estimate.points) == len(points) - len(points[::7])


def test_mask_and_weights_select_the_static_part():
    truth, moving = np.array([0.01, 0.02, 0.0]), np.array([-0.03, 0.0, 0.0])
    flow = pure_flow(truth)
    flow[:, :200] = pure_flow(moving)[:, :200]
    mask = np.zeros(flow.shape[:2], np.uint8)
    mask[:, 200:] = 1
    estimator = RotationEstimator(CAMERA)
    assert degrees_off(estimator(flow), moving) < 1e-3
    assert degrees_off(estimator(flow, mask), truth) < 1e-3
    assert degrees_off(estimator(flow, weights=mask * 1.0), truth) < 1e-3
    assert degrees_off(estimator(flow, weights=0.2 + 0.8 * mask), truth) < 1e-2


def test_prior_recentres_the_search():
    truth = np.array([0.2, -0.1, 0.05])
    narrow = RotationEstimator(CAMERA, widen=False)
    assert narrow(pure_flow(truth)).status is Status.OUT_OF_RANGE
    near = narrow(pure_flow(truth), prior=truth + 0.01)
    assert near.ok
    assert degrees_off(near, truth) < 1e-5
    estimate = narrow(pure_flow(truth), prior=RotationEstimate(rotvec=truth))
    assert degrees_off(estimate, truth) < 1e-5


def test_duplicate_frames_are_the_identity():
    estimate = RotationEstimator(CAMERA)(np.zeros((180, 320, 2), np.float32))
    assert estimate.status is Status.DEGENERATE
    assert estimate.rotvec.tolist() == [0, 0, 0]
    assert "duplicate frames" in estimate.message
    nearly = RotationEstimator(CAMERA)(np.random.default_rng(0).normal(0, 0.01, (180, 320, 2)))
    assert nearly.ok
    assert nearly.angle < 1e-4


def test_chaos_is_out_of_range():
    for seed in range(5):
        flow = np.random.default_rng(seed).normal(0, 15, (180, 320, 2))
        assert RotationEstimator(CAMERA)(flow).status is Status.OUT_OF_RANGE


def test_two_equal_halves_are_ambiguous():
    first, second = np.array([0.02, 0.03, 0.0]), np.array([-0.03, 0.0, 0.0])
    flow = pure_flow(first)
    flow[::2] = pure_flow(second)[::2]
    estimate = RotationEstimator(CAMERA, grid_step=7)(flow)
    assert estimate.status is Status.AMBIGUOUS
    both = sorted([degrees_off(estimate, first), degrees_off(estimate, second)])
    assert both[0] < 0.01
    other = float(np.degrees(min(so3.angle_between(estimate.second, w) for w in (first, second))))
    assert other < 0.01


def test_few_vectors_are_low_texture():
    points = np.random.default_rng(0).uniform(0, 170, (20, 2))
    estimate = RotationEstimator(CAMERA).from_points(points, points + 1, prior=[0.01, 0, 0])
    assert estimate.status is Status.LOW_TEXTURE
    assert estimate.rotvec.tolist() == [0.01, 0, 0]
    assert "only 20 usable vectors" in estimate.message


def test_a_small_patch_is_degenerate():
    rng = np.random.default_rng(0)
    points = rng.uniform(100, 106, (200, 2))
    moved = points + np.array([3.0, 1.0]) + rng.normal(0, 0.3, (200, 2))
    assert RotationEstimator(CAMERA).from_points(points, moved).status is Status.DEGENERATE


def test_small_images_vote_on_a_finer_grid():
    tiny = Camera.from_focal(60.0, 64, 48)
    truth = np.array([0.02, -0.01, 0.015])
    estimator = RotationEstimator(tiny)
    assert len(estimator.voting_points) >= 300
    estimate = estimator(pure_flow(truth, tiny))
    assert estimate.ok
    assert degrees_off(estimate, truth) < 1e-4
    assert len(RotationEstimator(Camera.from_focal(400.0, 480, 270)).voting_points) == 576


def test_presets():
    scene = make_scene("S1", 0, seed=8)
    fast = RotationEstimator.preset("fast", scene.camera)(scene.flow)
    assert fast.ok
    assert len(fast.points) == 576
    paper = RotationEstimator.preset("paper", scene.camera)(scene.flow)
    assert paper.covariance is None
    np.testing.assert_allclose(paper.rotvec * 1000, np.round(paper.rotvec * 1000), atol=1e-9)
    with pytest.raises(ValueError, match=r"no preset 'fats'. Did you mean 'fast'"):
        RotationEstimator.preset("fats", scene.camera)


def test_no_flips_of_180_degrees():
    for index in range(30):
        scene = make_scene(f"S{index % 6}", index, seed=99)
        for refine in ("irls", "joint"):
            assert (
                degrees_off(
                    RotationEstimator(scene.camera, refine=refine)(scene.flow), scene.rotvec
                )
                < 3
            )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_angle": 3.2}, r"max_angle=3.2 rad is 183.346 degrees, over 180; was it meant"),
        ({"max_angle": -0.1}, r"max_angle must be a positive number of radians, got -0.1"),
        ({"max_angle": float("nan")}, r"max_angle must be a positive number"),
        (
            {"bin_size": 0.1},
            r"bin_size=0.1 rad \(5.73 degrees\) must be .* no larger than the range",
        ),
        ({"bin_size": 0.0}, r"bin_size=0 rad .* must be positive"),
        ({"bin_size": 1e-6}, r"140,059\^3 cells needs 73.1 GiB .* raise bin_size=1e-06"),
        ({"bin_size": 5e-5, "search": "pyramid"}, r"GiB of counters per thread"),
        ({"grid_step": 0}, r"grid_step must be a whole number >= 1, got 0"),
        ({"sigma": -1.0}, r"sigma must be 'auto' or a positive number of px, got -1.0"),
        ({"refine": "jiont"}, r"no refine 'jiont'. Did you mean 'joint'"),
        ({"geometry": "exat"}, r"no geometry 'exat'. Did you mean 'exact'"),
        ({"backend": "cude"}, r"no backend 'cude'. Did you mean 'cuda'"),
    ],
)
def test_bad_settings(options, message):
    with pytest.raises(ValueError, match=message):
        RotationEstimator(CAMERA, **options)


@pytest.mark.parametrize(
    ("camera", "options", "message"),
    [
        (None, {}, "camera must be a visionlab.rotation.Camera, got NoneType; make one by"),
        (CAMERA, {"bin_size": "1e-3"}, "bin_size must be a number of radians, got '1e-3'"),
        (CAMERA, {"max_angle": None}, "max_angle must be a number of radians, got None"),
    ],
)
def test_settings_of_a_wrong_type(camera, options, message):
    with pytest.raises(TypeError, match=message):
        RotationEstimator(camera, **options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
def test_gpu_asked_for_and_absent():
    flow = pure_flow(np.array([0.01, 0, 0]))
    with pytest.raises(RuntimeError, match="backend='cuda' was asked for, but torch sees no CUDA"):
        RotationEstimator(CAMERA, backend="cuda")(flow)


SMALL = Camera.from_focal(40.0, 24, 16)


@given(
    flow=hnp.arrays(
        st.sampled_from([np.float32, np.float64]),
        st.sampled_from([(16, 24, 2), (24, 16, 2), (16, 24, 3), (16, 24)]),
        elements=st.floats(width=32, allow_nan=True, allow_infinity=True),
    ),
    refine=st.sampled_from(["irls", "joint", "none"]),
    masked=st.booleans(),
)
@settings(max_examples=30, deadline=None)
def test_any_array_gives_an_estimate_or_one_clear_error(flow, refine, masked):
    estimator = RotationEstimator(SMALL, grid_step=2, refine_step=1, refine=refine)
    mask = np.isfinite(flow).all(-1) if masked else None
    try:
        estimate = estimator(flow, mask)
    except ValueError as error:
        known = ("shape", "px but the camera", "non-finite", "hides all")
        if not any(sentence in str(error) for sentence in known):
            raise
        return
    assert np.isfinite(estimate.rotvec).all()
    assert estimate.status in Status
    assert estimate.angle < 2.0


def test_import_is_light():
    code = (
        "import sys, time; t = time.process_time(); import visionlab.rotation as r; "
        "r.Camera; r.RotationEstimator; r.RotationEstimate; r.make_scene; r.baseline; "
        "assert not {'torch', 'numba', 'cv2', 'scipy', 'matplotlib'} & set(sys.modules); "
        "print(time.process_time() - t)"
    )
    runs = [
        float(
            subprocess.run(
                [sys.executable, "-c", code], capture_output=True, text=True, check=True
            ).stdout
        )
        for _ in range(2)
    ]
    assert min(runs) < 0.5
