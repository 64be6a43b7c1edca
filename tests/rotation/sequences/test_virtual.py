import numpy as np
import pytest

from visionlab.rotation import so3
from visionlab.rotation.flow import LucasKanade
from visionlab.rotation.sequences import VirtualCamera, read_sequence, smooth_rotations

OPTIONS = {"size": (240, 136), "focal": 210.0, "frames": 6, "peak_deg": 4.0}


def test_pixels_move_as_the_orientation_says(texture) -> None:
    """The truth, written as a motion of rays, predicts what tracking sees."""
    clip = VirtualCamera(texture, seed=1, **OPTIONS)
    frames = [f.image for f in clip.frames()]
    for i, step in enumerate(clip.truth.steps):
        tracks = LucasKanade()(frames[i], frames[i + 1])
        rays = clip.camera.bearings(tracks.points0)
        predicted = clip.camera.project(rays @ so3.exp(step))  # R^T p
        error = np.linalg.norm(predicted - tracks.points1, axis=1)
        assert np.nanmedian(error) < 0.05
        assert np.nanmedian(np.linalg.norm(tracks.points1 - tracks.points0, axis=1)) > 0.5


def test_the_seed_decides_everything(texture) -> None:
    make = lambda seed: VirtualCamera(texture, seed=seed, movers=3, noise=2.0, **OPTIONS)  # noqa: E731
    first, again, other = make(5), make(5), make(6)
    for a, b, c in zip(first.frames(), again.frames(), other.frames()):
        assert np.array_equal(a.image, b.image)
        assert not np.array_equal(a.image, c.image)
    assert np.array_equal(first.truth.quaternions, again.truth.quaternions)


def test_frames_can_be_taken_up_in_the_middle(texture) -> None:
    clip = VirtualCamera(texture, seed=2, movers=2, noise=1.0, **OPTIONS)
    whole = list(clip.frames())
    assert all(
        a.index == b.index and np.array_equal(a.image, b.image)
        for a, b in zip(clip.frames(start=3), whole[3:])
    )


def test_every_view_stays_inside_the_source(texture) -> None:
    clip = VirtualCamera(texture, seed=3, **{**OPTIONS, "peak_deg": 40.0, "frames": 80})
    assert np.abs(np.degrees(clip.rotvecs)).max() < 30
    assert clip._inside(clip.rotvecs)
    assert not clip._inside(clip.rotvecs * 1.01)


def test_movers_change_the_picture_and_stay_in_it(texture) -> None:
    plain, crowd = (VirtualCamera(texture, seed=4, movers=m, **OPTIONS) for m in (0, 4))
    assert np.array_equal(plain.truth.quaternions, crowd.truth.quaternions)
    changed = [np.mean(a.image != b.image) for a, b in zip(plain.frames(), crowd.frames())]
    assert min(changed) > 0.05
    for board in crowd.movers:
        for index in (0, 7, 500):
            x, y = board.place(index, (640, 480))
            assert 0 <= x <= 640 - board.texture.shape[1]
            assert 0 <= y <= 480 - board.texture.shape[0]


def test_a_short_video_runs_forth_and_back(texture, write_video, tmp_path) -> None:
    frames = [np.full((480, 640), level, np.uint8) for level in (50, 100, 150)]
    video = write_video(tmp_path / "levels.avi", frames)
    clip = VirtualCamera(video, **OPTIONS)
    levels = [round(f.image.mean(), -1) for f in clip.frames()]
    assert levels == [50, 100, 150, 100, 50, 100]


def test_written_clips_are_sequences(texture, tmp_path) -> None:
    clip = VirtualCamera(texture, seed=8, **OPTIONS)
    sequence = read_sequence(clip.write(tmp_path / "clip"))
    assert sequence.camera.fx == pytest.approx(clip.camera.fx)
    assert sequence.camera.cx == pytest.approx(clip.camera.cx)
    assert sequence.truth.steps == pytest.approx(clip.truth.steps, abs=1e-9)
    stored = [f.image for f in sequence.source.frames()]
    assert all(np.array_equal(f.image, s) for f, s in zip(clip.frames(), stored))
    with pytest.raises(FileExistsError, match="is not empty"):
        clip.write(tmp_path / "clip")


def test_photographs_may_be_files_and_coloured(texture, tmp_path) -> None:
    import cv2

    cv2.imwrite(str(tmp_path / "photo.png"), texture)
    clip = VirtualCamera(tmp_path / "photo.png", **OPTIONS)
    grey, colour = next(clip.frames()).image, next(clip.frames(colour=True)).image
    assert colour.shape == (136, 240, 3)
    assert np.array_equal(grey, colour[..., 0])
    assert next(VirtualCamera(texture, **OPTIONS).frames(colour=True)).image.shape == colour.shape


def test_rotations_reach_their_peak_smoothly() -> None:
    vectors = smooth_rotations(200, rng=np.random.default_rng(0), peak_deg=(1.0, 2.0, 3.0))
    assert np.degrees(np.abs(vectors).max(0)) == pytest.approx([1, 2, 3])
    assert np.degrees(np.abs(np.diff(vectors, axis=0)).max()) < 3


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"frames": 1}, ValueError, "at least two frames, got 1"),
        ({"focal": 20.0}, ValueError, "wider than the source"),
        ({"focal": -5.0}, ValueError, "fx must be a positive"),
        ({"source_fov": 190.0}, ValueError, "field of view"),
    ],
)
def test_bad_views_get_one_sentence(change, error, message, texture) -> None:
    with pytest.raises(error, match=message):
        VirtualCamera(texture, **{**OPTIONS, **change})


@pytest.mark.parametrize("name", ["none.png", "none.avi"])
def test_a_missing_source_is_named(name, tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="no such"):
        VirtualCamera(tmp_path / name, **OPTIONS)
