"""KITTI odometry (Geiger et al., CVPR 2012): ``sequences/00`` with ``calib.txt`` and ``times.txt``.

Poses are those of the left grey camera, camera-to-world, in ``poses/00.txt`` two folders up.
The pictures are rectified, so that the colour cameras have the same orientation.
"""

from pathlib import Path

import numpy as np

from visionlab.rotation.calibration import read_camera
from visionlab.rotation.camera import Camera
from visionlab.rotation.sequences.base import Sequence, require
from visionlab.rotation.trajectory import Trajectory
from visionlab.rotation.trajectory_files import read_trajectory
from visionlab.rotation.video import ImageFolder

_CAMERAS = ("image_0", "image_2", "image_1", "image_3")


def read_kitti(path: str | Path, *, camera: Camera | None = None) -> Sequence:
    """Read a folder such as ``dataset/sequences/00``.

    Raises:
        FileNotFoundError: calibration, times, pictures or poses are missing.
        ValueError: as many poses and times as pictures are needed.
    """
    root = Path(path)
    calibration = require(root / "calib.txt", what="the calibration")
    times = np.loadtxt(require(root / "times.txt", what="the times"), ndmin=1)
    folder = next((root / name for name in _CAMERAS if (root / name).is_dir()), root / _CAMERAS[0])
    require(folder, what="the folder of pictures")
    own = root / "poses.txt"
    file = own if own.is_file() else root.parent.parent / "poses" / f"{root.name}.txt"
    poses = read_trajectory(require(file, what="the ground truth (sequences 00 to 10 have one)"))
    source = ImageFolder(folder, times=times)
    if not len(poses) == len(times) == source.count:
        raise ValueError(
            f"{root}: {source.count} pictures, {len(times)} times, {len(poses)} poses; the "
            "numbers must agree"
        )
    truth = Trajectory(np.arange(len(times)), times, poses.quaternions)
    if camera is None:
        # the row P0 to P3 belongs to image_0 to image_3
        row = f"P{folder.name[-1]}"
        camera = read_camera(calibration, "kitti", size=source.size, name=row)
    return Sequence(f"kitti-{root.name}", camera, truth, source)
