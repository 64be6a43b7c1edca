"""KITTI: the rectified camera, a pose for each picture."""

from pathlib import Path

import numpy as np
import pytest

from tests.rotation.sequences.recordings import COUNT, motion, pictures
from visionlab.rotation import so3
from visionlab.rotation.sequences import read_sequence
from visionlab.rotation.trajectory import Trajectory


@pytest.fixture
def kitti(tmp_path: Path) -> tuple[Path, Trajectory]:
    root = tmp_path / "dataset/sequences/04"
    pictures(root / "image_0", [f"{i:06d}.png" for i in range(COUNT)])
    p0 = "7.070912e+01 0 2.3e+01 0 0 7.070912e+01 1.6e+01 0 0 0 1 0"
    (root / "calib.txt").write_text(f"P0: {p0}\nP1: {p0}\nTr: {p0}\n")
    (root / "times.txt").write_text("".join(f"{i * 0.1036:.6e}\n" for i in range(COUNT)))
    poses = motion(COUNT, rate=10)
    table = np.concatenate(
        [so3.matrix_from_quaternion(poses.quaternions), np.ones((COUNT, 3, 1))], 2
    )
    (tmp_path / "dataset/poses").mkdir()
    np.savetxt(tmp_path / "dataset/poses/04.txt", table.reshape(COUNT, 12), fmt="%.6e")
    return root, poses


def test_kitti_takes_the_rectified_camera(kitti) -> None:
    root, poses = kitti
    sequence = read_sequence(root)
    assert sequence.truth.steps == pytest.approx(poses.steps, abs=1e-5)
    assert (sequence.camera.fx, sequence.camera.cx, sequence.camera.width) == (70.70912, 23.0, 48)
    assert sequence.truth.times[1] == pytest.approx(0.1036)
    assert [f.time for f in sequence.source.frames()] == pytest.approx(sequence.truth.times)


def test_kitti_needs_as_many_poses_as_pictures(kitti) -> None:
    root, _ = kitti
    (root / "image_0/000005.png").unlink()
    with pytest.raises(ValueError, match="5 pictures, 6 times, 6 poses"):
        read_sequence(root)
