"""Pictures or a video with a table of orientations: ``frame[,t],qx,qy,qz,qw``, camera-to-world.

Layouts: a folder with ``gt.csv`` and ``frames/`` (or a video), or ``clip.mp4`` beside
``clip_gt.csv``. A calibration may lie beside it as ``camera.yaml`` (OpenCV, EuRoC) or
``cameras.txt`` (COLMAP).
"""

from pathlib import Path

import numpy as np

from visionlab.rotation.camera import Camera
from visionlab.rotation.sequences.base import Sequence, require
from visionlab.rotation.trajectory import Trajectory
from visionlab.rotation.trajectory_files import read_trajectory
from visionlab.rotation.video import FrameSource, ImageFolder, open_source

_VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v")


def read_csv_sequence(path: str | Path, *, camera: Camera | None = None) -> Sequence:
    """Read a clip and its table.

    Raises:
        FileNotFoundError: no table, no pictures, or no calibration and no ``camera``.
        ValueError: as many rows as frames are needed.
    """
    root = Path(path)
    if root.is_file():
        name, folder = root.stem, root.parent
        table = require(folder / f"{name}_gt.csv", what="the table of orientations")
        source = open_source(root)
    else:
        name, folder = root.name, root
        table = require(folder / "gt.csv", what="the table of orientations")
        source = _pictures(folder)
    truth = read_trajectory(table)
    times = truth.times if _has_times(table) else np.arange(len(truth)) / source.fps
    truth = Trajectory(truth.frames, times, truth.quaternions, truth.columns)
    if source.count is not None and source.count != len(truth):
        raise ValueError(f"{root} has {source.count} frames, but {table} has {len(truth)} rows")
    if isinstance(source, ImageFolder):
        source = ImageFolder(source.name, files=source.files, times=times)
    return Sequence(name, camera or _calibration(folder, name, source.size), truth, source)


def _pictures(folder: Path) -> FrameSource:
    if (folder / "frames").is_dir():
        return open_source(folder / "frames")
    videos = [f for f in sorted(folder.iterdir()) if f.suffix.lower() in _VIDEO_SUFFIXES]
    return open_source(videos[0] if videos else folder)


def _has_times(table: Path) -> bool:
    header = {name.strip() for name in table.read_text("utf-8").splitlines()[0].split(",")}
    return bool(header & {"t", "time", "timestamp"})


def _calibration(folder: Path, name: str, size: tuple[int, int]) -> Camera:
    for candidate in (f"{name}_camera.yaml", "camera.yaml", "cameras.txt"):
        if (folder / candidate).is_file():
            return Camera.from_file(folder / candidate)
    raise FileNotFoundError(
        f"no calibration beside {folder / name} (camera.yaml or cameras.txt); give the camera, "
        f"e.g. Camera.from_fov(60, {size[0]}, {size[1]})"
    )
