"""Formats by name and by layout; what is missing is named; flows from files."""

import cv2
import numpy as np
import pytest

from tests.rotation.sequences.recordings import SMALL
from visionlab.rotation.camera import Camera
from visionlab.rotation.sequences import SEQUENCES, detect_format, read_sequence
from visionlab.rotation.sequences.base import read_flow
from visionlab.rotation.trajectory import Trajectory
from visionlab.rotation.trajectory_files import write_tum


@pytest.mark.shared_data
def test_shared_layouts_are_read(shared_data) -> None:
    folder = shared_data("rotation/euroc_v101_micro")
    camera = Camera(229.0, 229.0, 187.5, 119.5, 376, 240)
    sequence = read_sequence(folder, camera=camera)
    assert len(sequence.truth) == sequence.source.count == 95
    assert sequence.truth.times[1] == pytest.approx(0.05)
    video = read_sequence(shared_data("rotation/semi_vtest_easy.mp4"), camera=SMALL)
    assert len(video.truth) == 150
    assert video.truth.times[1] == pytest.approx(0.04)


FORMATS = ["buss", "csv", "euroc", "kitti", "tum", "tumvi"]


def test_every_format_is_registered() -> None:
    assert SEQUENCES.names() == FORMATS


def test_unknown_layouts_and_names_are_explained(tmp_path) -> None:
    with pytest.raises(ValueError, match="no sequence of a known format"):
        detect_format(tmp_path)
    with pytest.raises(ValueError, match="Did you mean 'euroc'"):
        read_sequence(tmp_path, format="euroq")
    with pytest.raises(FileNotFoundError, match="no such sequence"):
        read_sequence(tmp_path / "none")


@pytest.mark.parametrize("name", ["tum", "euroc", "tumvi", "kitti", "buss", "csv"])
def test_missing_parts_are_named(name, tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="is missing"):
        read_sequence(tmp_path, format=name)


def test_pictures_outside_the_truth_are_an_error(tum) -> None:
    root, poses = tum
    late = Trajectory(poses.frames, poses.times + 100, poses.quaternions)
    write_tum(late, root / "groundtruth.txt")
    with pytest.raises(ValueError, match="fewer than two pictures lie within"):
        read_sequence(root)


def test_flows_of_other_kinds_are_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match="cannot read a flow"):
        read_flow(tmp_path / "a.txt")
    np.save(tmp_path / "a.npy", np.zeros((4, 5)))
    with pytest.raises(ValueError, match=r"expected a flow \(H, W, 2\)"):
        read_flow(tmp_path / "a.npy")
    cv2.writeOpticalFlow(str(tmp_path / "a.flo"), np.ones((4, 5, 2), np.float32))
    assert read_flow(tmp_path / "a.flo").shape == (4, 5, 2)


@pytest.mark.parametrize("suffix", [".npy", ".pt", ".flo"])
@pytest.mark.parametrize("content", [b"", b"\x93NUMPY cut", b"PIEH\x00\x00", b"no flow at all"])
def test_a_damaged_flow_is_named(suffix, content, tmp_path) -> None:
    (tmp_path / f"a{suffix}").write_bytes(content)
    with pytest.raises(ValueError, match=rf"a\{suffix} (is no readable flow|holds an array)"):
        read_flow(tmp_path / f"a{suffix}")
    with pytest.raises(FileNotFoundError, match=rf"b\{suffix}"):
        read_flow(tmp_path / f"b{suffix}")
