"""The door: flow fields, masks and tracks, checked once and turned into contiguous rows.

Rows are (6, N) float64: x, y in frame i and u, v in frame i+1 on the plane z = 1, the local focal
length in px, and the weight. `refinement` and `joint` take them as they are.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionlab.rotation.camera import Camera

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Correspondences:
    """Usable vectors of one frame pair."""

    rows: Array
    """(6, N), see the module."""
    points: Array
    """(N, 2) px in frame i."""
    weighted: bool
    """Whether the weights carry confidences, rather than all being one."""

    def __len__(self) -> int:
        return self.rows.shape[1]


class PixelGrid:
    """Every ``step``-th pixel of a camera's image, half a step in from the border.

    Args:
        camera: its size is that of the flow.
        step: px; an image smaller than a step still gives one row or column.
    """

    def __init__(self, camera: Camera, step: int) -> None:
        self.camera, self.step = camera, step
        self.ys = np.arange(min(step // 2, camera.height - 1), camera.height, step)
        self.xs = np.arange(min(step // 2, camera.width - 1), camera.width, step)
        self.window = np.s_[self.ys[0] :: step, self.xs[0] :: step]
        x, y = np.meshgrid(self.xs, self.ys)
        self.points = np.stack([x, y], -1).reshape(-1, 2).astype(np.float64)
        plane = camera.normalise(self.points)
        self._rows = stack_rows(camera, self.points, plane, plane)
        self._seen = np.isfinite(self._rows).all(0)

    def gather(self, flow: Any, mask: Any, weights: Any) -> Correspondences:
        """The vectors at the grid's pixels, from arrays that `check_flow` has passed."""
        rows = self._rows.copy()
        sample = _to_numpy(flow[self.window]).astype(np.float64)
        keep = None if self._seen.all() else self._seen
        if self.camera.model == "pinhole":
            rows[2] += sample[..., 0].ravel() * (1 / self.camera.fx)
            rows[3] += sample[..., 1].ravel() * (1 / self.camera.fy)
        else:
            moved = self.points + sample.reshape(-1, 2)
            rows[2:4] = self.camera.normalise(moved).T
            seen = np.isfinite(rows).all(0)
            keep = seen if keep is None else keep & seen
        if mask is not None:
            chosen = _to_numpy(mask[self.window]).reshape(-1) != 0
            keep = chosen if keep is None else keep & chosen
        if weights is not None:
            rows[5] = _to_numpy(weights[self.window]).reshape(-1)
            keep = rows[5] > 0 if keep is None else keep & (rows[5] > 0)
        if keep is None:
            return Correspondences(rows, self.points, False)
        return Correspondences(
            np.ascontiguousarray(rows[:, keep]), self.points[keep], weights is not None
        )


def stack_rows(camera: Camera, points: Array, plane0: Array, plane1: Array) -> Array:
    """(6, N) rows with weight one; the local focal length is pixels per unit of the plane."""
    rows = np.empty((6, len(points)))
    rows[:2], rows[2:4], rows[5] = plane0.T, plane1.T, 1.0
    if camera.model == "pinhole":
        rows[4] = camera.focal
        return rows
    right, below = np.array([0.5, 0.0]), np.array([0.0, 0.5])
    across = camera.normalise(points + right) - camera.normalise(points - right)
    down = camera.normalise(points + below) - camera.normalise(points - below)
    with np.errstate(all="ignore"):
        rows[4] = 1 / np.sqrt(np.abs(across[:, 0] * down[:, 1] - across[:, 1] * down[:, 0]))
    return rows


def gather_points(
    camera: Camera, points0: Any, points1: Any, weights: Any = None
) -> Correspondences:
    """Sparse tracks (N, 2) px as rows; tracks with NaN are lost and dropped.

    Raises:
        ValueError: shapes that do not fit, negative or non-finite weights, infinite positions.
    """
    start, end = (np.asarray(_to_numpy(p), np.float64) for p in (points0, points1))
    if start.ndim != 2 or start.shape[-1] != 2 or start.shape != end.shape:
        raise ValueError(
            f"expected two arrays of tracks of the same shape (N, 2) in px, got {start.shape} and "
            f"{end.shape}"
        )
    if np.isinf(start).any() or np.isinf(end).any():
        raise ValueError("tracks hold infinite positions; mark lost tracks by NaN")
    rows = stack_rows(camera, start, camera.normalise(start), camera.normalise(end))
    if weights is not None:
        rows[5] = check_weights(weights, (len(start),))
    keep = np.isfinite(rows).all(0) & (rows[5] > 0)
    return Correspondences(np.ascontiguousarray(rows[:, keep]), start[keep], weights is not None)


def _to_numpy(array: Any) -> NDArray[Any]:
    """NumPy view or copy of an array or of a torch tensor on any device."""
    if hasattr(array, "detach"):
        return array.detach().cpu().numpy()
    return np.asarray(array)


def check_flow(flow: Any, camera: Camera, mask: Any, weights: Any) -> tuple[Any, Any, Any]:
    """Check a dense flow field and what selects its vectors; torch tensors stay where they are.

    Raises:
        TypeError: flow that is not an array of floating point numbers.
        ValueError: wrong shape, size other than the camera's, NaN or inf among the vectors in use,
            a mask or weights that leave none.
    """
    if not hasattr(flow, "dtype") or "float" not in str(flow.dtype):
        came = getattr(flow, "dtype", type(flow).__name__)
        raise TypeError(
            f"flow must be a NumPy array or torch tensor of floating point px, got {came}"
        )
    size = (camera.height, camera.width)
    if flow.ndim != 3 or flow.shape[-1] != 2:
        hint = "; move the channels last" if flow.ndim == 3 and flow.shape[0] == 2 else ""
        raise ValueError(f"flow must have shape (height, width, 2), got {tuple(flow.shape)}{hint}")
    if tuple(flow.shape[:2]) != size:
        raise ValueError(
            f"flow is {flow.shape[1]}x{flow.shape[0]} px but the camera {size[1]}x{size[0]}; use "
            f"camera.scaled({flow.shape[1]}, {flow.shape[0]}) if the image was resized"
        )
    if mask is not None:
        mask = mask if hasattr(mask, "dtype") else np.asarray(mask)
        if tuple(mask.shape) != size:
            raise ValueError(f"mask must have shape {size}, got {tuple(mask.shape)}")
        if not bool((mask != 0).any()):
            raise ValueError(
                f"the mask hides all {size[0] * size[1]} vectors; nonzero marks vectors to use, so "
                "it may be inverted"
            )
    if weights is not None:
        weights = check_weights(weights, size)
    _check_finite(flow, mask, weights)
    return flow, mask, weights


def check_weights(weights: Any, shape: tuple[int, ...]) -> Array:
    """Confidences as float64.

    Raises:
        ValueError: another shape, a negative or non-finite weight, nothing but zeros.
    """
    out = np.asarray(_to_numpy(weights), np.float64)
    if out.shape != shape:
        raise ValueError(f"weights must have shape {shape}, got {out.shape}")
    if not np.isfinite(out).all() or out.min(initial=0.0) < 0:
        raise ValueError("weights must be finite and not negative; 0 drops a vector")
    if out.size and out.max() == 0:
        raise ValueError("all weights are 0, which leaves no vector; a positive weight keeps one")
    return out


def _check_finite(flow: Any, mask: Any, weights: Any) -> None:
    # one sum finds any NaN or inf in 25 microseconds; the exact count follows only if need be
    with np.errstate(all="ignore"):
        if np.isfinite(float(flow.sum())):
            return
    usable = np.isfinite(_to_numpy(flow)).all(-1)
    needed = np.ones(usable.shape, bool)
    if mask is not None:
        needed &= _to_numpy(mask) != 0
    if weights is not None:
        needed &= weights > 0
    bad = int((needed & ~usable).sum())
    if bad:
        raise ValueError(
            f"flow holds {bad} non-finite vectors of {int(needed.sum())} in use; mask them, e.g. "
            "mask=np.isfinite(flow).all(-1)"
        )
