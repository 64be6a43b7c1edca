"""Small recordings for the tests of readers: pictures, a motion, poses as rows."""

from pathlib import Path

import cv2
import numpy as np

from visionlab.rotation import so3
from visionlab.rotation.camera import Camera
from visionlab.rotation.trajectory import Trajectory

COUNT = 6
PICTURE = np.tile(np.arange(0, 240, 5, dtype=np.uint8), (32, 1))  # 48 x 32
SMALL = Camera(50.0, 51.0, 23.0, 16.0, 48, 32)
MOUNT = so3.exp([0.3, -1.1, 0.5])  # camera axes -> body axes


def motion(count: int, *, rate: float, seed: int = 0) -> Trajectory:
    steps = np.random.default_rng(seed).normal(size=(count - 1, 3)) * 0.02
    return Trajectory.from_steps(steps, np.arange(count) / rate)


def pictures(folder: Path, names: list[str]) -> None:
    folder.mkdir(parents=True)
    for name in names:
        cv2.imwrite(str(folder / name), PICTURE)


def pose_rows(poses: Trajectory, start_ns: int) -> str:
    rows = []
    for time, (x, y, z, w) in zip(poses.times, poses.quaternions):
        stamp = start_ns + round(time * 1e9)
        rows.append(f"{stamp},0.1,0.2,0.3,{w:.12f},{x:.12f},{y:.12f},{z:.12f}")
    return "\n".join(rows) + "\n"
