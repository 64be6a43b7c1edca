"""The orientation of a camera over time: one row a frame, as estimated or as measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from visionlab.rotation import so3

Array = NDArray[np.float64]

# rotation from the frame before: none (first frame), none (scene change), exactly none
START, CUT, DUPLICATE = "start", "cut", "duplicate"
_UNKNOWN = (START, CUT)
_UNIT_TOLERANCE = 1e-3  # ground truth is often written with 4 to 6 decimals


@dataclass(frozen=True)
class Trajectory:
    """Camera-to-world orientations R_wc of N frames.

    Args:
        frames: (N,) frame numbers in the source, rising.
        times: (N,) seconds, rising.
        quaternions: (N, 4) x, y, z, w, camera-to-world.
        columns: further values per frame, each of length N (``status``, ``inlier_ratio``, ...).

    Raises:
        ValueError: lengths that differ, frames or times that do not rise, non-unit quaternions.
    """

    frames: NDArray[np.int64]
    times: Array
    quaternions: Array
    columns: Mapping[str, Sequence[Any] | NDArray[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        frames = np.asarray(self.frames)
        times = np.asarray(self.times, np.float64)
        quaternions = np.asarray(self.quaternions, np.float64)
        if quaternions.ndim != 2 or quaternions.shape[1] != 4:
            raise ValueError(f"expected quaternions of shape (N, 4), got {quaternions.shape}")
        count = len(quaternions)
        lengths = {"frames": len(frames), "times": len(times)}
        lengths |= {name: len(values) for name, values in self.columns.items()}
        wrong = [f"{name} {length}" for name, length in lengths.items() if length != count]
        if wrong:
            raise ValueError(f"{count} quaternions, but {', '.join(wrong)}: lengths must agree")
        norms = np.linalg.norm(quaternions, axis=1)
        if count and not np.all(np.abs(norms - 1) < _UNIT_TOLERANCE):
            row = int(np.flatnonzero(~(np.abs(norms - 1) < _UNIT_TOLERANCE))[0])
            raise ValueError(
                f"quaternion {row} has norm {norms[row]:.4g}, expected 1: normalise them, "
                "or check that the columns are x, y, z, w"
            )
        for name, values in (("frame numbers", frames), ("times", times)):
            steps = np.diff(values)
            if not np.all(steps > 0):
                row = int(np.flatnonzero(~(steps > 0))[0]) + 1
                raise ValueError(
                    f"{name} must rise from row to row; row {row} has {values[row]} after "
                    f"{values[row - 1]}"
                )
        object.__setattr__(self, "frames", frames.astype(np.int64))
        object.__setattr__(self, "times", times)
        object.__setattr__(self, "quaternions", quaternions / norms[:, None])

    @classmethod
    def from_steps(
        cls, rotvecs: ArrayLike, times: ArrayLike, *, frames: ArrayLike | None = None
    ) -> Self:
        """Chain camera rotations (N-1, 3) in rad into N orientations; the first is the identity.

        A NaN step (a cut) keeps the orientation and gets the status ``cut``.

        Example:
            >>> turn = Trajectory.from_steps([[0.0, 0.1, 0.0]] * 3, [0.0, 0.1, 0.2, 0.3])
            >>> turn.steps.round(6).tolist()
            [[0.0, 0.1, 0.0], [0.0, 0.1, 0.0], [0.0, 0.1, 0.0]]
        """
        steps = np.asarray(rotvecs, np.float64).reshape(-1, 3)
        unknown = np.array([not np.isfinite(step).all() for step in steps], bool)
        quaternions = [np.array([0.0, 0.0, 0.0, 1.0])]
        for step in np.where(unknown[:, None], 0.0, steps):
            quaternions.append(advance(quaternions[-1], step))
        numbers = np.arange(len(steps) + 1) if frames is None else np.asarray(frames)
        columns = {}
        if unknown.any():
            columns["status"] = [START, *(CUT if bad else "ok" for bad in unknown)]
        return cls(numbers, np.asarray(times, np.float64), np.array(quaternions), columns)

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def known(self) -> NDArray[np.bool_]:
        """(N-1,) whether the rotation that led to frame 1..N-1 is known; False across a cut."""
        status = self.columns.get("status")
        if status is None:
            return np.ones(max(len(self) - 1, 0), bool)
        return np.array([s not in _UNKNOWN for s in status[1:]], bool)

    @property
    def steps(self) -> Array:
        """(N-1, 3) camera rotation from each frame to the next, rad; NaN across a cut."""
        steps = relative(self.quaternions[:-1], self.quaternions[1:])
        return np.where(self.known[:, None], steps, np.nan)

    @property
    def rates(self) -> Array:
        """(N-1, 3) angular velocity in rad/s between frames; NaN across a cut."""
        return self.steps / np.diff(self.times)[:, None]

    @property
    def segments(self) -> NDArray[np.int64]:
        """(N,) number of the uncut piece that each frame lies in."""
        return np.concatenate([[0], np.cumsum(~self.known)]).astype(np.int64)[: len(self)]

    @property
    def angles(self) -> Array:
        """(N, 3) sum of the rotations so far, rad, about the camera's own axes."""
        steps = np.nan_to_num(self.steps)
        return np.concatenate([np.zeros((1, 3)), np.cumsum(steps, 0)])[: len(self)]

    def at(self, times: ArrayLike) -> Array:
        """Quaternions (M, 4) at other times, by spherical interpolation.

        Raises:
            ValueError: a time outside the trajectory.
        """
        wanted = np.asarray(times, np.float64)
        slack = 1e-6
        if (
            len(self) < 2
            or wanted.min() < self.times[0] - slack
            or wanted.max() > self.times[-1] + slack
        ):
            raise ValueError(
                f"times {wanted.min():.6f} to {wanted.max():.6f} s reach outside the trajectory: "
                f"it spans {self.times[0]:.6f} to {self.times[-1]:.6f} s; choose frames inside it"
            )
        left = np.clip(np.searchsorted(self.times, wanted, "right") - 1, 0, len(self) - 2)
        share = (wanted - self.times[left]) / (self.times[left + 1] - self.times[left])
        step = relative(self.quaternions[left], self.quaternions[left + 1])
        part = so3.quaternion_from_rotvec(step * np.clip(share, 0, 1)[:, None])
        return so3.multiply(self.quaternions[left], part)

    def turned(self, extrinsic: ArrayLike) -> Self:
        """The orientation of a sensor fixed to this body: ``R_wb @ R_bc`` with R_bc (3, 3)."""
        mount = so3.quaternion_from_matrix(extrinsic)
        return type(self)(
            self.frames, self.times, so3.multiply(self.quaternions, mount), self.columns
        )


def relative(first: ArrayLike, second: ArrayLike) -> Array:
    """Camera rotation (..., 3) from orientation ``first`` to ``second``, both xyzw (..., 4)."""
    inverse = np.asarray(first, np.float64) * np.array([-1.0, -1.0, -1.0, 1.0])
    return so3.rotvec_from_quaternion(so3.multiply(inverse, second))


def advance(quaternion: ArrayLike, rotvec: ArrayLike) -> Array:
    """Orientation (4,) after the camera rotation ``rotvec`` (3,); stays of unit length."""
    product = so3.multiply(quaternion, so3.quaternion_from_rotvec(rotvec))
    return product / np.linalg.norm(product)
