"""The door: dense flow and sparse tracks become the same rows, or one sentence."""

import numpy as np
import pytest

from visionlab.rotation.camera import Camera
from visionlab.rotation.estimate import Status
from visionlab.rotation.estimator import RotationEstimator
from visionlab.rotation.inputs import PixelGrid, gather_points, stack_rows

CAMERA = Camera.from_focal(300.0, 320, 180)


GOOD = np.zeros((180, 320, 2))


HOLE = GOOD.copy()


HOLE[3, 4, 0] = np.nan


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (
            (GOOD[:90],),
            {},
            ValueError,
            r"flow is 320x90 px but the camera 320x180; use camera.scaled",
        ),
        ((GOOD[..., :1],), {}, ValueError, r"shape \(height, width, 2\), got \(180, 320, 1\)"),
        (
            (np.moveaxis(GOOD, -1, 0),),
            {},
            ValueError,
            r"got \(2, 180, 320\); move the channels last",
        ),
        ((GOOD.astype(int),), {}, TypeError, r"floating point px, got int64"),
        (([1, 2],), {}, TypeError, r"floating point px, got list"),
        ((HOLE,), {}, ValueError, r"flow holds 1 non-finite vectors of 57600 in use; mask them"),
        ((np.full_like(GOOD, np.inf),), {}, ValueError, r"non-finite vectors"),
        (
            (GOOD, np.zeros((180, 320))),
            {},
            ValueError,
            r"the mask hides all 57600 vectors; nonzero marks",
        ),
        (
            (GOOD, np.ones((90, 320))),
            {},
            ValueError,
            r"mask must have shape \(180, 320\), got \(90, 320\)",
        ),
        (
            (GOOD,),
            {"weights": -np.ones((180, 320))},
            ValueError,
            r"weights must be finite and not negative",
        ),
        ((GOOD,), {"weights": np.zeros((180, 320))}, ValueError, r"all weights are 0"),
        (
            (GOOD,),
            {"weights": np.ones(3)},
            ValueError,
            r"weights must have shape \(180, 320\), got \(3,\)",
        ),
        (
            (GOOD,),
            {"prior": [1, 2]},
            ValueError,
            r"prior must be a RotationEstimate or a finite rotation",
        ),
    ],
)
def test_bad_flow(arguments, options, error, message):
    with pytest.raises(error, match=message):
        RotationEstimator(CAMERA)(*arguments, **options)


def test_nan_under_the_mask_is_fine():
    mask = np.ones((180, 320), bool)
    mask[3, 4] = False
    assert RotationEstimator(CAMERA)(HOLE, mask).status is Status.DEGENERATE


def test_bad_tracks_and_batches():
    estimator = RotationEstimator(CAMERA)
    with pytest.raises(ValueError, match=r"same shape \(N, 2\) in px, got \(4, 2\) and \(5, 2\)"):
        estimator.from_points(np.zeros((4, 2)), np.zeros((5, 2)))
    with pytest.raises(ValueError, match="infinite positions; mark lost tracks by NaN"):
        estimator.from_points(np.full((4, 2), np.inf), np.zeros((4, 2)))
    with pytest.raises(ValueError, match=r"\(frames, height, width, 2\), got \(180, 320, 2\)"):
        estimator.batch(GOOD)
    with pytest.raises(ValueError, match="2 flows but 3 masks; give one per flow"):
        estimator.batch(np.stack([GOOD, GOOD]), np.ones((3, 180, 320)))


RADTAN = Camera(310.0, 300.0, 163.0, 88.0, 320, 180, (-0.25, 0.08, 1e-3, -5e-4))


@pytest.mark.parametrize("camera", [CAMERA, RADTAN], ids=["pinhole", "radtan"])
@pytest.mark.parametrize("selected", [False, True])
def test_dense_flow_and_tracks_give_the_same_rows(camera, selected):
    rng = np.random.default_rng(0)
    flow, step = rng.normal(size=(180, 320, 2)), 13
    mask = rng.random((180, 320)) < 0.5 if selected else None
    weights = rng.random((180, 320)).round(1) if selected else None
    dense = PixelGrid(camera, step).gather(flow, mask, weights)
    ys, xs = np.mgrid[step // 2 : 180 : step, step // 2 : 320 : step].reshape(2, -1)
    points = np.stack([xs, ys], -1).astype(float)
    keep = np.ones(len(points), bool) if mask is None else mask[ys, xs]
    sparse = gather_points(camera, points[keep], (points + flow[ys, xs])[keep],
                           None if weights is None else weights[ys, xs][keep])  # fmt: skip
    np.testing.assert_array_equal(dense.points, sparse.points)
    np.testing.assert_allclose(dense.rows, sparse.rows, rtol=1e-12, atol=1e-12)
    assert dense.weighted is sparse.weighted is selected
    assert len(dense) == len(dense.points)


def test_lost_tracks_and_weights_of_zero_are_dropped():
    start = np.array([[10.0, 20.0], [30.0, 40.0], [50.0, 60.0]])
    end = start + 1
    end[1] = np.nan
    kept = gather_points(CAMERA, start, end, np.array([0.5, 1.0, 0.0]))
    np.testing.assert_array_equal(kept.points, start[:1])
    assert kept.rows[5].tolist() == [0.5]


def test_the_local_focal_length_is_pixels_per_unit_of_the_plane():
    points = np.array([[160.0, 90.0], [20.0, 15.0], [300.0, 170.0]])
    plane = RADTAN.normalise(points)
    focal = stack_rows(RADTAN, points, plane, plane)[4]
    assert focal[0] == pytest.approx(RADTAN.focal, rel=1e-3)  # no distortion near the axis
    step = 1e-4
    for i, point in enumerate(points):  # area of a pixel on the plane, by finite differences
        a, b, c = RADTAN.normalise(point + step * np.array([[0, 0], [1, 0], [0, 1]]))
        area = abs(np.linalg.det(np.stack([b - a, c - a]) / step))
        assert focal[i] == pytest.approx(1 / np.sqrt(area), rel=1e-4)
