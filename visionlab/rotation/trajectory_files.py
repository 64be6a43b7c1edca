"""Trajectories on disk: CSV and JSON lines (ours), TUM, KITTI poses, and gyro rates (.gcsv).

CSV: one row a frame, ``frame,time,qx,qy,qz,qw`` first, so that an output serves as ground truth.
"""

import csv
import json
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from visionlab.registry import suggest
from visionlab.rotation import so3
from visionlab.rotation.trajectory import Trajectory

_POSE = ("qx", "qy", "qz", "qw")
_TIME_NAMES = ("time", "t", "timestamp")


@contextmanager
def atomic(path: str | Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a file that appears under ``path`` only once it is complete."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    try:
        with open(temporary, mode, **text) as file:  # type: ignore[call-overload]
            yield file
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def rows(trajectory: Trajectory) -> Iterator[dict[str, Any]]:
    """One dict a frame, in column order."""
    pose = trajectory.quaternions.tolist()
    for i, (frame, time) in enumerate(zip(trajectory.frames.tolist(), trajectory.times.tolist())):
        yield {
            "frame": frame,
            "time": time,
            **dict(zip(_POSE, pose[i])),
            **{name: values[i] for name, values in trajectory.columns.items()},
        }


def cell(value: Any) -> str:
    """A CSV field: twelve digits are far below any rotation that a camera can see."""
    if isinstance(value, float | np.floating):
        return "" if math.isnan(value) else f"{value:.12g}"
    return str(value)


def write_csv(trajectory: Trajectory, path: str | Path) -> None:
    """All columns; empty where unknown."""
    header = ["frame", "time", *_POSE, *trajectory.columns]
    with atomic(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows([cell(v) for v in row.values()] for row in rows(trajectory))


def write_jsonl(trajectory: Trajectory, path: str | Path) -> None:
    """One JSON object a line; null where unknown."""
    with atomic(path) as file:
        for row in rows(trajectory):
            file.write(json.dumps({name: _plain(value) for name, value in row.items()}) + "\n")


def _plain(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and math.isnan(value) else value


def write_tum(trajectory: Trajectory, path: str | Path) -> None:
    """``time tx ty tz qx qy qz qw`` with zero positions, for evo and the TUM tools."""
    with atomic(path) as file:
        file.write("# timestamp tx ty tz qx qy qz qw (camera-to-world, positions not estimated)\n")
        for time, q in zip(trajectory.times, trajectory.quaternions):
            file.write(f"{time:.9f} 0 0 0 " + " ".join(f"{v:.12f}" for v in q) + "\n")


def write_gcsv(trajectory: Trajectory, path: str | Path, *, video: str = "") -> None:
    """Angular velocity as a Gyroflow log, in the camera's axes (x right, y down, z forward).

    Times lie midway between frames, where the mean rate of a pair belongs. ``orientation,yxz``
    turns our axes into Gyroflow's, which keeps the motion of the *points* as (y, x, z).
    Across a cut no sample is written.
    """
    middle = (trajectory.times[:-1] + trajectory.times[1:]) / 2
    with atomic(path) as file:
        file.write("GYROFLOW IMU LOG\nversion,1.3\nid,visionlab_rotation\norientation,yxz\n")
        file.write("note,camera rotation from optical flow\n")
        file.write(f"videofilename,{Path(video).name}\n" if video else "")
        file.write("tscale,1.0\ngscale,1.0\nt,gx,gy,gz\n")
        for time, rate in zip(middle, trajectory.rates):
            if np.isfinite(rate).all():
                file.write(f"{time:.6f}," + ",".join(f"{v:.9g}" for v in rate) + "\n")


WRITERS: dict[str, Callable[..., None]] = {
    "csv": write_csv,
    "jsonl": write_jsonl,
    "tum": write_tum,
    "gcsv": write_gcsv,
}


def writer(name: str) -> Callable[..., None]:
    """The writer of a format: ``csv``, ``jsonl``, ``tum`` or ``gcsv``."""
    if name not in WRITERS:
        raise ValueError(f"no output format '{name}'. {suggest(name, WRITERS)}")
    return WRITERS[name]


def read_trajectory(path: str | Path) -> Trajectory:
    """Read CSV, JSON lines, TUM or KITTI poses; the content tells which.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a format that is none of these, or values that are no rotations.
    """
    source = Path(path)
    if not source.is_file():
        raise FileNotFoundError(f"no such trajectory file: {source}")
    lines = [
        line for line in source.read_text("utf-8", errors="replace").splitlines() if line.strip()
    ]
    data = [line for line in lines if not line.lstrip().startswith("#")]
    if not data:
        raise ValueError(f"{source} holds no rows; expected one a frame")
    try:
        return _reader(data[0])(data)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error


def _reader(first: str) -> Callable[[list[str]], Trajectory]:
    if first.lstrip().startswith("{"):
        return lambda lines: _from_rows([json.loads(line) for line in lines])
    if "," in first:
        return lambda lines: _from_rows(list(csv.DictReader(lines)))
    fields = len(first.split())
    if fields == 8:
        return _from_tum
    if fields == 12:
        return _from_kitti
    raise ValueError(
        f"not a trajectory: its first row has {fields} fields; expected CSV with qx,qy,qz,qw, TUM "
        "(time tx ty tz qx qy qz qw) or KITTI poses (12 numbers)"
    )


def _number(value: Any) -> float:
    return math.nan if value in ("", None) else float(value)


def _from_rows(table: list[dict[str, Any]]) -> Trajectory:
    names = [name.strip() for name in table[0]]
    table = [{str(k).strip(): v for k, v in row.items()} for row in table]
    missing = [name for name in _POSE if name not in names]
    if missing:
        raise ValueError(f"no column {', '.join(missing)}; found {', '.join(names)}")
    time = next((name for name in _TIME_NAMES if name in names), None)
    frames = [int(_number(r["frame"])) for r in table] if "frame" in names else range(len(table))
    pose = [[_number(row[name]) for name in _POSE] for row in table]
    times = [_number(row[time]) for row in table] if time else [float(f) for f in frames]
    used = {*_POSE, "frame", time}
    columns = {name: [_value(row[name]) for row in table] for name in names if name not in used}
    return Trajectory(np.array(frames), np.array(times), np.array(pose), columns)


def _value(text: Any) -> Any:
    try:
        return _number(text)
    except (TypeError, ValueError):
        return text


def _from_tum(lines: list[str]) -> Trajectory:
    table = np.array([[float(v) for v in line.split()] for line in lines])
    return Trajectory(np.arange(len(table)), table[:, 0], table[:, 4:8])


def _from_kitti(lines: list[str]) -> Trajectory:
    table = np.array([[float(v) for v in line.split()] for line in lines]).reshape(-1, 3, 4)
    matrices = table[:, :, :3]
    gram = np.abs(matrices @ np.swapaxes(matrices, 1, 2) - np.eye(3)).max(initial=0)
    if not gram < 1e-3:
        raise ValueError(f"pose rows are no rotation matrices: R R^T differs from 1 by {gram:.3g}")
    count = np.arange(len(table))
    return Trajectory(count, count.astype(float), so3.quaternion_from_matrix(matrices))
