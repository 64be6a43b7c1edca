"""TUM RGB-D (Sturm et al., IROS 2012): ``rgb.txt``, ``groundtruth.txt``, pictures in ``rgb/``.

Poses are those of the colour camera's optical frame, camera-to-world, about 100 a second.
"""

from pathlib import Path

import numpy as np

from visionlab.rotation.camera import Camera
from visionlab.rotation.sequences.base import Sequence, require, timed_frames
from visionlab.rotation.trajectory_files import read_trajectory

# colour intrinsics that the authors publish: fx fy cx cy, k1 k2 p1 p2 k3
_CALIBRATIONS = {
    "freiburg1": (
        (517.3, 516.5, 318.6, 255.3),
        (0.2624, -0.9531, -0.0054, 0.0026, 1.1633),
    ),
    "freiburg2": (
        (520.9, 521.0, 325.1, 249.7),
        (0.2312, -0.7849, -0.0033, -0.0001, 0.9172),
    ),
    "freiburg3": ((535.4, 539.2, 320.1, 247.6), None),
}


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
    return timed_frames(root.name, files, times, poses, camera or _calibration(root.name))


def _calibration(name: str) -> Camera:
    for key, (focal, distortion) in _CALIBRATIONS.items():
        if key in name:
            return Camera(*focal, width=640, height=480, distortion=distortion)
    raise ValueError(
        f"the calibration of '{name}' is not known: rename the folder so that it holds one of "
        f"{', '.join(_CALIBRATIONS)}, or give the camera"
    )
