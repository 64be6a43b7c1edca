"""EuRoC MAV (Burri et al., IJRR 2016) and TUM-VI (Schubert et al., IROS 2018, EuRoC export).

``mav0/cam0/data.csv`` lists the pictures, nanoseconds and file names. Poses are those of the IMU,
``time, p, q (w first)``, body-to-world; the camera's follow from its mounting on the body.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionlab.rotation.camera import Camera
from visionlab.rotation.sequences.base import Sequence, require, timed_frames
from visionlab.rotation.trajectory import Trajectory


def read_euroc(path: str | Path, *, camera: Camera | None = None) -> Sequence:
    """Read a folder such as ``V1_01_easy`` (with ``mav0`` inside), left camera.

    Raises:
        FileNotFoundError: a list, the ground truth or ``sensor.yaml`` is missing.
    """
    root = Path(path)
    sensor = require(root / "mav0/cam0/sensor.yaml", what="the calibration of camera 0")
    mount = np.array(_yaml(sensor)["T_BS"]["data"], np.float64).reshape(4, 4)[:3, :3]
    poses = _poses(
        require(root / "mav0/state_groundtruth_estimate0/data.csv", what="the ground truth")
    )
    camera = camera or Camera.from_file(sensor, kind="euroc")
    return timed_frames(root.name, *_pictures(root), poses.turned(mount), camera)


def read_tumvi(path: str | Path, *, camera: Camera | None = None) -> Sequence:
    """Read a folder such as ``dataset-room1_512_16`` (with ``mav0`` and ``dso`` inside).

    The motion capture leaves holes in the long sequences; the longest run without any is kept.

    Raises:
        FileNotFoundError: a list, the ground truth or ``dso/camchain.yaml`` is missing.
    """
    root = Path(path)
    chain = require(root / "dso/camchain.yaml", what="the calibration")
    to_camera = np.array(_yaml(chain)["cam0"]["T_cam_imu"], np.float64)[:3, :3]
    poses = _poses(require(root / "mav0/mocap0/data.csv", what="the ground truth"))
    camera = camera or Camera.from_file(chain, kind="euroc")
    return timed_frames(root.name, *_pictures(root), poses.turned(to_camera.T), camera)


def _pictures(root: Path) -> tuple[list[Path], NDArray[np.float64]]:
    table = require(root / "mav0/cam0/data.csv", what="the list of pictures")
    rows = [line.split(",") for line in _data_lines(table)]
    files = [root / "mav0/cam0/data" / name.strip() for _, name in rows]
    return files, np.array([_seconds(stamp) for stamp, *_ in rows])


def _poses(table: Path) -> Trajectory:
    rows = [line.split(",") for line in _data_lines(table)]
    pose = np.array([[float(v) for v in row[4:8]] for row in rows])
    times = np.array([_seconds(row[0]) for row in rows])
    return Trajectory(np.arange(len(rows)), times, pose[:, [1, 2, 3, 0]])


def _seconds(nanoseconds: str) -> float:
    # exact below the microsecond although a double holds only 16 digits of 1.4e18 ns
    whole, rest = divmod(int(nanoseconds), 1_000_000_000)
    return whole + rest * 1e-9


def _data_lines(table: Path) -> list[str]:
    lines = table.read_text().splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]


def _yaml(path: Path) -> Any:
    import yaml

    # OpenCV's header "%YAML:1.0" is not YAML
    return yaml.safe_load("\n".join(x for x in path.read_text().splitlines() if x[:1] != "%"))
