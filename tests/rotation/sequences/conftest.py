"""A recording of the TUM RGB-D layout."""

from pathlib import Path

import numpy as np
import pytest

from tests.rotation.sequences.recordings import COUNT, motion, pictures
from visionlab.rotation.trajectory import Trajectory
from visionlab.rotation.trajectory_files import write_tum


@pytest.fixture
def tum(tmp_path: Path) -> tuple[Path, Trajectory]:
    root = tmp_path / "rgbd_dataset_freiburg1_xyz"
    times = 1305031102.175304 + np.arange(COUNT) / 30
    pictures(root / "rgb", [f"{t:.6f}.png" for t in times])
    listing = "# color images\n# file: 'rgbd_dataset_freiburg1_xyz.bag'\n# timestamp filename\n"
    (root / "rgb.txt").write_text(listing + "".join(f"{t:.6f} rgb/{t:.6f}.png\n" for t in times))
    poses = motion(30, rate=100)
    shifted = Trajectory(poses.frames, poses.times + times[0] - 0.005, poses.quaternions)
    write_tum(shifted, root / "groundtruth.txt")
    return root, shifted
