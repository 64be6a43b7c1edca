"""A sequence: frames or flows, the camera, the true orientation of every frame."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from visionlab.registry import suggest
from visionlab.rotation.camera import Camera
from visionlab.rotation.trajectory import Trajectory
from visionlab.rotation.video import FrameSource, ImageFolder

log = logging.getLogger(__name__)

MAX_GAP = 0.1  # s: poses further apart are not interpolated


@dataclass(frozen=True)
class Sequence:
    """One recording.

    Frame k of ``source`` has the row k of ``truth``; flow k leads from frame k to frame k+1.
    """

    name: str
    camera: Camera
    truth: Trajectory
    source: FrameSource | None = None
    flows: tuple[Path, ...] = ()

    def flow(self, index: int) -> NDArray[np.float32]:
        """Stored flow (H, W, 2) in px from frame ``index`` to the next."""
        return read_flow(self.flows[index])


def read_sequence(
    path: str | Path, *, format: str | None = None, camera: Camera | None = None
) -> Sequence:
    """Read a sequence of a known data set.

    Args:
        path: folder of the sequence, or a video with its table of orientations beside it.
        format: a name in `SEQUENCES`; without it the layout on disk tells.
        camera: instead of the calibration that the data set brings.

    Raises:
        FileNotFoundError: no such path, or a part of the data set is missing.
        ValueError: an unknown format, or a layout that is none of the known.
    """
    from visionlab.rotation.sequences import SEQUENCES

    root = Path(path)
    if not root.exists():
        raise FileNotFoundError(f"no such sequence: {root}")
    sequence: Sequence = SEQUENCES.get(format or detect_format(root))(root, camera=camera)
    return sequence


_SIGNS = {
    "buss": ("rotations.csv",),
    "tum": ("rgb.txt", "groundtruth.txt"),
    "tumvi": ("mav0/mocap0/data.csv",),
    "euroc": ("mav0/cam0/data.csv",),
    "kitti": ("calib.txt", "times.txt"),
    "csv": ("gt.csv",),
}


def detect_format(path: str | Path) -> str:
    """The name of the format whose files lie in a folder.

    Raises:
        ValueError: no known layout.
    """
    root = Path(path)
    if root.is_file():
        return "csv"
    for name, files in _SIGNS.items():
        if all((root / file).is_file() for file in files):
            return name
    expected = "; ".join(f"{name}: {', '.join(files)}" for name, files in _SIGNS.items())
    raise ValueError(f"{root} is no sequence of a known format. Expected files are {expected}")


def require(path: Path, *, what: str) -> Path:
    """The path, if it is there."""
    if not path.exists():
        raise FileNotFoundError(f"{what} is missing: {path}")
    return path


def timed_frames(
    name: str,
    files: list[Path],
    times: ArrayLike,
    poses: Trajectory,
    camera: Camera,
    *,
    max_gap: float = MAX_GAP,
) -> Sequence:
    """A sequence of pictures and poses with clocks of their own.

    Orientations are interpolated at the pictures' times. Pictures outside the poses, or in a hole
    of more than ``max_gap`` seconds between them, cannot be judged: the longest run without any
    is kept.
    """
    seconds = np.asarray(times, np.float64)
    after = np.searchsorted(poses.times, seconds, "right")
    inside = (after > 0) & (after < len(poses))
    place = np.clip(after, 1, max(len(poses) - 1, 1))
    covered = inside & (poses.times[place] - poses.times[place - 1] <= max_gap)
    covered |= np.isin(seconds, poses.times)
    first, last = _longest_run(covered)
    if last - first < 2:
        raise ValueError(
            f"{name}: fewer than two pictures lie within the ground truth, which spans "
            f"{poses.times[0]:.3f} to {poses.times[-1]:.3f} s (pictures: {seconds[0]:.3f} to "
            f"{seconds[-1]:.3f} s)"
        )
    if last - first < len(seconds):
        log.info("%s: %d of %d pictures have ground truth", name, last - first, len(seconds))
    kept = seconds[first:last]
    truth = Trajectory(np.arange(len(kept)), kept, poses.at(kept))
    source = ImageFolder(files[first].parent, files=files[first:last], times=kept)
    return Sequence(name, camera, truth, source)


def _longest_run(flags: NDArray[np.bool_]) -> tuple[int, int]:
    edges = np.diff(np.concatenate([[0], flags.astype(int), [0]]))
    starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    if not len(starts):
        return (0, 0)
    best = int(np.argmax(ends - starts))
    return int(starts[best]), int(ends[best])


def read_flow(path: str | Path) -> NDArray[np.float32]:
    """Flow (H, W, 2) in px from ``.npy``, ``.pt`` (a tensor) or Middlebury ``.flo``.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another suffix, a damaged file, or no array of two components.
    """
    file = Path(path)
    if file.suffix not in _FLOW_SUFFIXES:
        raise ValueError(
            f"cannot read a flow of {file.name}: {suggest(file.suffix, _FLOW_SUFFIXES)}"
        )
    try:
        flow = _load_flow(file)
    except FileNotFoundError:
        raise
    except Exception as error:  # whatever the headers of a damaged file lead to
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{file} is no readable flow: {first}") from error
    flow = np.squeeze(flow)
    if flow.ndim == 3 and flow.shape[0] == 2 and flow.shape[2] != 2:
        flow = np.moveaxis(flow, 0, -1)
    if flow.ndim != 3 or flow.shape[2] != 2:
        raise ValueError(f"{file} holds an array of shape {flow.shape}, expected a flow (H, W, 2)")
    return np.ascontiguousarray(flow, np.float32)


def _load_flow(file: Path) -> NDArray[Any]:
    if file.suffix == ".npy":
        with file.open("rb") as opened:
            return np.lib.format.read_array(opened, allow_pickle=False)
    if file.suffix == ".pt":
        import torch

        return torch.load(file, map_location="cpu", weights_only=True).float().numpy()
    import cv2

    if not file.is_file():
        raise FileNotFoundError(f"no flow {file}")
    return np.asarray(cv2.readOpticalFlow(str(file)))


_FLOW_SUFFIXES = (".npy", ".pt", ".flo")
