"""BUSS, the data set of arXiv 2309.08588: 17 handheld sequences in crowds, rotation per frame pair.

``rotations.csv`` has a quaternion x, y, z, w a row (its last four numbers), the rotation of the
*points* from frame i to i+1 in axes turned 180 degrees about the optical axis. Beside it lie flows
of a quarter of 1920x1080 (``.pt``, ``.npy`` or ``.flo``, in natural order), or pictures.
The layout is known from descriptions only; the data could not be fetched to check it.
"""

import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from visionlab.rotation import so3
from visionlab.rotation.camera import Camera
from visionlab.rotation.sequences.base import Sequence, read_flow, require
from visionlab.rotation.trajectory import Trajectory
from visionlab.rotation.video import FrameSource, ImageFolder, natural_order

FOCAL = 1655.0  # px at a width of 1920
FPS = 30.0
_FLOW_SUFFIXES = {".pt", ".npy", ".flo"}
_IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg"}


def read_buss(path: str | Path, *, camera: Camera | None = None) -> Sequence:
    """Read a sequence folder.

    Raises:
        FileNotFoundError: ``rotations.csv``, or both flows and pictures, are missing.
        ValueError: a row without a unit quaternion, or too few flows or pictures.
    """
    root = Path(path)
    steps = _read_rotations(require(root / "rotations.csv", what="the ground truth"))
    files = sorted(root.rglob("*"), key=lambda f: (str(f.parent), natural_order(f)))
    flows = tuple(f for f in files if f.suffix.lower() in _FLOW_SUFFIXES)
    pictures = [f for f in files if f.suffix.lower() in _IMAGE_SUFFIXES]
    source: FrameSource | None = None
    if flows:
        if len(flows) != len(steps):
            raise ValueError(f"{root}: {len(flows)} flows but {len(steps)} rotations")
        height, width = read_flow(flows[0]).shape[:2]
    elif pictures:
        if len(pictures) != len(steps) + 1:
            raise ValueError(f"{root}: {len(pictures)} pictures but {len(steps)} rotations")
        source = ImageFolder(root, files=pictures, fps=FPS)
        width, height = source.size
    else:
        raise FileNotFoundError(f"neither flows nor pictures in {root}")
    truth = Trajectory.from_steps(steps, np.arange(len(steps) + 1) / FPS)
    if camera is None:
        camera = Camera.from_focal(FOCAL * width / 1920, width, height)
    return Sequence(f"buss-{root.name}", camera, truth, source, flows)


def _read_rotations(table: str | Path) -> NDArray[np.float64]:
    """(N, 3) camera rotations in rad of a ``rotations.csv``."""
    quaternions = []
    with open(table, newline="", encoding="utf-8") as file:
        for number, row in enumerate(csv.reader(file)):
            try:
                values = [float(v) for v in row]
            except ValueError:
                if number == 0:  # a header
                    continue
                raise ValueError(f"{table}, line {number + 1}: not a number in {row}") from None
            if len(values) < 4:
                raise ValueError(
                    f"{table}, line {number + 1}: {len(values)} numbers, expected four"
                )
            quaternions.append(values[-4:])
    if not quaternions:
        raise ValueError(f"{table} holds no rotation")
    return so3.convert(so3.rotvec_from_quaternion(quaternions), "buss")
