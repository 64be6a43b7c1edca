"""TUM RGB-D (Sturm et al., IROS 2012): ``rgb.txt``, ``groundtruth.txt``, pictures in ``rgb/``.

Poses are those of the colour camera's optical frame, camera-to-world, about 100 a second.
"""

from pathlib import Path

import numpy as np

from visionlab.rotation.camera import Camera
from visionlab.rotation.sequences.base import Sequence, require, timed_frames
from visionlab.rotation.trajectory_files import read_trajectory


def read_tum(path: str | Path, *, camera: Camera | None = None) -> Sequence:
    """Read a sequence folder such as ``rgbd_dataset_freiburg3_walking_xyz``.

    Raises:
        FileNotFoundError: ``rgb.txt`` or ``groundtruth.txt`` is missing.
        ValueError: the name tells no Freiburg calibration, and no ``camera`` is given.
    """
    root = Path(path)
    listed = require(root / "rgb.txt", what="the list of pictures").read_text().splitlines()
    pairs = [line.split() for line in listed if line.strip() and not line.startswith("#")]
    times = np.array([float(time) for time, _ in pairs])
    poses = read_trajectory(require(root / "groundtruth.txt", what="the ground truth"))
    files = [root / name for _, name in pairs]
    return timed_frames(root.name, files, times, poses, camera or _calibration(root))


def _calibration(root: Path) -> Camera:
    if "freiburg" in root.name:
        return Camera.from_file(root, kind="tum")  # the benchmark's published colour intrinsics
    raise ValueError(
        f"the calibration of '{root.name}' is not known: rename the folder so that it holds "
        "freiburg1, freiburg2 or freiburg3, or give the camera"
    )
