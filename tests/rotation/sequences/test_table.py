"""A table of rotations beside a folder or a video."""

import pytest

from visionlab.rotation.sequences import read_sequence
from visionlab.rotation.trajectory_files import write_csv


def test_csv_folder_and_video(clip, write_video, tmp_path) -> None:
    folder = read_sequence(clip)
    assert (folder.camera.fx, folder.camera.cx) == (210.0, 119.5)
    frames = [f.image for f in folder.source.frames()]
    video = write_video(tmp_path / "turn.avi", frames)
    write_csv(folder.truth, tmp_path / "turn_gt.csv")
    beside = read_sequence(video, camera=folder.camera)
    assert beside.truth.steps == pytest.approx(folder.truth.steps, abs=1e-9)
    with pytest.raises(FileNotFoundError, match="no calibration beside"):
        read_sequence(video)


def test_csv_of_other_length_is_refused(clip, write_video, tmp_path) -> None:
    folder = read_sequence(clip)
    frames = [f.image for f in folder.source.frames()][:-2]
    video = write_video(tmp_path / "turn.avi", frames)
    write_csv(folder.truth, tmp_path / "turn_gt.csv")
    with pytest.raises(ValueError, match=r"has 10 frames, but .* has 12 rows"):
        read_sequence(video, camera=folder.camera)
