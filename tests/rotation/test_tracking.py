import cv2
import numpy as np
import pytest

from visionlab.rotation.baselines import least_squares
from visionlab.rotation.camera import Camera
from visionlab.rotation.continuity import sample
from visionlab.rotation.estimator import RotationEstimator
from visionlab.rotation.evaluation import step_errors
from visionlab.rotation.flow import DenseInverseSearch, LucasKanade, Tracks
from visionlab.rotation.pipeline import events, to_trajectory
from visionlab.rotation.sequences import VirtualCamera
from visionlab.rotation.tracking import Masks, RotationTracker, least_squares_step
from visionlab.rotation.video import Frame

SIZE, FOCAL = (240, 136), 210.0
CAMERA = Camera.from_focal(FOCAL, *SIZE)


@pytest.fixture(scope="module")
def view(texture) -> VirtualCamera:
    return VirtualCamera(texture, size=SIZE, focal=FOCAL, frames=8, seed=3, peak_deg=2.0)


@pytest.fixture(scope="module")
def frames(view) -> list[Frame]:
    return list(view.frames())


def estimator(camera: Camera = CAMERA) -> RotationEstimator:
    return RotationEstimator(camera, grid_step=8, refine_step=4)


def tracker(flow=None, **options) -> RotationTracker:
    return RotationTracker(CAMERA, flow or LucasKanade(), estimator(), **options)


def numbers(rows) -> np.ndarray:
    return np.array([[v for v in row.values() if not isinstance(v, str)] for row in rows], float)


@pytest.mark.parametrize("flow", [LucasKanade(), DenseInverseSearch()], ids=["lk", "dis"])
def test_rows_hold_the_rotation_of_the_camera(flow, frames, view) -> None:
    chain = to_trajectory(list(tracker(flow).rows(frames)))
    assert step_errors(chain.steps, view.truth.steps).max() < 0.05
    assert chain.columns["status"] == ["start"] + ["ok"] * 7
    assert chain.times == pytest.approx(view.truth.times)


def test_least_squares_stands_in_every_row(frames, view) -> None:
    chain = to_trajectory(list(tracker().rows(frames)))
    simple = np.stack([chain.columns[f"ls_w{a}"] for a in "xyz"], 1)
    assert np.isnan(simple[0]).all()
    assert step_errors(simple[1:], view.truth.steps).max() < 0.3


def test_the_quick_least_squares_is_the_baseline(frames) -> None:
    for flow in (LucasKanade(), DenseInverseSearch("ultrafast")):
        motion = flow(frames[0].image, frames[1].image)
        tracks = sample(motion)
        kept = np.isfinite(tracks.points1).all(1)
        slow = least_squares(tracks.points0[kept], tracks.points1[kept], CAMERA)
        assert least_squares_step(motion, CAMERA) == pytest.approx(slow, abs=1e-7)


def test_least_squares_of_nothing_is_unknown() -> None:
    lost = Tracks(np.array([[5.0, 5.0]]), np.array([[np.nan, np.nan]]))
    assert np.isnan(least_squares_step(lost, CAMERA)).all()


@pytest.mark.parametrize("prior", [False, True])
def test_going_on_gives_the_rows_of_the_whole(prior, frames) -> None:
    whole = list(tracker(use_prior=prior).rows(frames))
    head = list(tracker(use_prior=prior).rows(frames[:4]))
    tail = list(tracker(use_prior=prior).rows(frames[3:], before=head[-1]))
    assert np.array_equal(numbers(head + tail), numbers(whole), equal_nan=True)


@pytest.mark.parametrize("batch", [2, 3, 20])
def test_batches_change_nothing(batch, frames) -> None:
    flow = DenseInverseSearch("ultrafast")
    alone, together = (list(tracker(flow, batch=b).rows(frames)) for b in (1, batch))
    assert numbers(together) == pytest.approx(numbers(alone), abs=1e-9, nan_ok=True)


def scene(images) -> list[Frame]:
    return [Frame(i, i / 25, image) for i, image in enumerate(images)]


@pytest.mark.parametrize(("flow", "batch"), [(LucasKanade(), 1), (DenseInverseSearch(), 4)])
def test_cuts_and_repeated_pictures_are_told(flow, batch, frames, texture) -> None:
    other = np.ascontiguousarray(255 - np.flipud(texture).T[:136, :240] // 2)
    images = [f.image for f in frames[:3]] + [frames[2].image] * 6 + [other, np.roll(other, 1, 1)]
    rows = list(tracker(flow, batch=batch).rows(scene(images)))
    status = [row["status"] for row in rows]
    assert status[:9] == ["start", "ok", "ok"] + ["duplicate"] * 6
    assert status[9] == "cut"
    assert [row["segment"] for row in rows] == [0] * 9 + [1, 1]
    assert rows[4]["wx"] == rows[4]["wy"] == 0
    assert np.isnan(rows[9]["wx"])
    found = [(e["kind"], e["first_frame"], e["last_frame"]) for e in events(to_trajectory(rows))]
    assert found == [("frozen", 3, 8), ("cut", 9, 9)]


def test_a_single_repeat_is_a_duplicate(frames) -> None:
    images = [frames[0].image, frames[1].image, frames[1].image, frames[2].image]
    chain = to_trajectory(list(tracker().rows(scene(images))))
    assert [e["kind"] for e in events(chain)] == ["duplicate"]


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("flow", [LucasKanade(), DenseInverseSearch()], ids=["lk", "dis"])
def test_a_mask_keeps_an_overlay_out(flow, batch, frames, view, tmp_path) -> None:
    """A dashboard that stands still in the image covers more than half of it."""
    rng = np.random.default_rng(0)
    panel = cv2.resize(rng.integers(0, 255, (20, 60)).astype(np.uint8), (240, 90))
    mask = np.full((136, 240), 255, np.uint8)
    mask[46:] = 0
    cv2.imwrite(str(tmp_path / "mask.png"), mask)
    covered = []
    for frame in frames:
        image = frame.image.copy()
        image[46:] = panel + rng.integers(0, 4, panel.shape).astype(np.uint8)
        covered.append(image)
    masks = Masks(tmp_path / "mask.png", size=SIZE)
    with_mask = to_trajectory(list(tracker(flow, masks=masks, batch=batch).rows(scene(covered))))
    without = to_trajectory(list(tracker(flow).rows(scene(covered))))
    assert np.median(step_errors(with_mask.steps, view.truth.steps)) < 0.15
    assert np.median(step_errors(without.steps, view.truth.steps)) > 0.3


def test_an_empty_mask_of_one_frame_is_a_verdict_not_an_end(frames, tmp_path) -> None:
    for i in range(8):
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.full((136, 240), 0 if i == 3 else 255, np.uint8))
    masks = Masks(tmp_path, size=SIZE)
    for flow in (LucasKanade(), DenseInverseSearch("ultrafast")):
        rows = list(tracker(flow, masks=masks, batch=4).rows(frames))
        assert [r["frame"] for r in rows if r["status"] == "low_texture"] == [4]


def test_masks_may_be_inverted(tmp_path) -> None:
    cv2.imwrite(str(tmp_path / "m.png"), np.zeros((136, 240), np.uint8))
    assert Masks(tmp_path / "m.png", size=SIZE, invert=True)(5).all()


def test_blank_pictures_are_low_texture() -> None:
    blank = [np.full((136, 240), level, np.uint8) for level in (0, 10, 200)]
    status = [row["status"] for row in tracker().rows(scene(blank))]
    assert status == ["start", "low_texture", "low_texture"]


def test_a_lower_width_scales_camera_and_masks(texture, tmp_path) -> None:
    view = VirtualCamera(texture, size=(480, 272), focal=420.0, frames=4, seed=3, peak_deg=2.0)
    cv2.imwrite(str(tmp_path / "m.png"), np.full((272, 480), 255, np.uint8))
    small = view.camera.scaled(240, 136)
    tracking = RotationTracker(
        small,
        LucasKanade(),
        estimator(small),
        width=240,
        masks=Masks(tmp_path / "m.png", size=(480, 272)),
    )
    chain = to_trajectory(list(tracking.rows(view.frames())))
    assert step_errors(chain.steps, view.truth.steps).max() < 0.06


def test_no_frames_no_rows() -> None:
    assert list(tracker().rows([])) == []


class Blind:
    """A flow that loses every point but lets the scene go on."""

    colour = dense = False

    def __call__(self, previous, current):
        points = np.array([[20.0, 20.0], [50.0, 60.0]])
        return Tracks(points, points + 1)


def test_too_few_tracks_are_low_texture(frames) -> None:
    assert [r["status"] for r in tracker(Blind()).rows(frames[:2])] == ["start", "low_texture"]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda p: tracker(batch=0), ValueError, "batch must be at least 1"),
        (lambda p: tracker(batch=2, use_prior=True), ValueError, "use batch 1, or no prior"),
        (lambda p: Masks(p / "none.png", size=SIZE), FileNotFoundError, "no such mask"),
        (lambda p: Masks(p, size=SIZE), ValueError, "no mask picture"),
        (lambda p: Masks(p / "d/a.png", size=(9, 9)), ValueError, "is 240x136, the frames are 9x9"),
        (lambda p: Masks(p / "d/a.png", size=SIZE), ValueError, "lets no pixel take part"),
        (lambda p: Masks(p / "d", size=SIZE)(1), ValueError, "1 masks, but frame 1 needs one"),
    ],
)
def test_bad_options_get_one_sentence(make, error, message, tmp_path) -> None:
    (tmp_path / "d").mkdir()
    cv2.imwrite(str(tmp_path / "d/a.png"), np.zeros((136, 240), np.uint8))
    with pytest.raises(error, match=message):
        make(tmp_path)
