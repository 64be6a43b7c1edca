"""Batches on the CPU: whole frames in one parallel kernel, so that no thread waits for the GIL.

What the kernel does not settle (duplicates, frames that need a wider range, bad values) is None and
goes through the single call, which also words the errors.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from visionlab.rotation import refinement, verdict
from visionlab.rotation.estimate import RotationEstimate
from visionlab.rotation.inputs import Correspondences
from visionlab.rotation.refinement import Refined
from visionlab.rotation.solver import Candidate
from visionlab.rotation.voting import counter_bytes

if TYPE_CHECKING:
    from visionlab.rotation.estimator import RotationEstimator

Array = NDArray[np.float64]


class Outcome(NamedTuple):
    """What the kernel fills, one row per frame."""

    finite: NDArray[np.bool_]
    still: NDArray[np.bool_]
    cells: NDArray[np.int64]
    votes: NDArray[np.int64]
    rotvecs: Array
    sigmas: Array
    covariances: Array
    solved: NDArray[np.bool_]
    ratios: Array
    inliers: NDArray[np.bool_]
    seconds: Array
    """(B, 4): the second rotation and its inlier ratio, which is -1 where there is none."""

    @classmethod
    def empty(cls, frames: int, vectors: int) -> "Outcome":
        """Zeros for so many frames of so many dense vectors."""
        shapes: list[tuple[Any, Any]] = [((), bool)] * 2 + [((), np.int64)] * 2
        shapes += [((3,), float), ((), float), ((3, 3), float), ((), bool), ((), float)]
        shapes += [((vectors,), bool), ((4,), float)]
        return cls(*(np.zeros((frames, *shape), dtype) for shape, dtype in shapes))


def can_solve(estimator: "RotationEstimator", flows: Any) -> bool:
    """Whether the kernel knows the settings: NumPy flow of a pinhole, refined by ``irls``."""
    solver, camera = estimator.solver, estimator.camera
    return (
        isinstance(flows, np.ndarray)
        and flows.dtype in (np.float32, np.float64)
        and flows.shape[1:] == (camera.height, camera.width, 2)
        and camera.model == "pinhole"
        and solver.refine == "irls"
        and solver.backend in ("auto", "numba")
        and len(estimator.voting_points) >= verdict.MIN_VECTORS
    )


def estimate_frames(
    estimator: "RotationEstimator", flows: NDArray[np.floating]
) -> list[RotationEstimate | None]:
    """Estimates of flows (B, H, W, 2) in parallel; None where the single call must decide."""
    from visionlab.rotation.frames_numba import solve_frames
    from visionlab.rotation.voting_numba import with_threads

    solver, camera = estimator.solver, estimator.camera
    max_angle, grid = solver.ranges[0]
    threads = min(estimator.num_threads, len(flows))
    places: list[Any] = []
    for pixels in (estimator.voting_grid, estimator.dense_grid):
        places += [pixels._rows, int(pixels.ys[0]), int(pixels.xs[0]), pixels.step]
    options = (
        solver.geometry == "exact",
        solver.search == "pyramid",
        float(max(refinement.START_SCALE, 2 * grid.bin_size * solver.focal)),
        float(solver.sigma or 0.0),
        solver.second_look,
    )
    wide = len(estimator.voting_points) >= 2**16
    counters = counter_bytes(grid.bins, solver.search) // 4 + 1
    out = Outcome.empty(len(flows), len(estimator.dense_grid.points))
    with_threads(
        threads,
        solve_frames,
        np.ascontiguousarray(flows),
        (*places, np.array([1 / camera.fx, 1 / camera.fy])),
        grid.bins,
        grid.bin_size,
        options,
        np.empty((threads, counters), np.uint32 if wide else np.uint16),
        tuple(out),
    )
    return [_judged(estimator, out, i, max_angle) for i in range(len(flows))]


def _judged(
    estimator: "RotationEstimator", out: Outcome, i: int, max_angle: float
) -> RotationEstimate | None:
    solver, grid = estimator.solver, estimator.solver.ranges[0][1]
    count, vectors = int(out.votes[i]), len(estimator.voting_points)
    if (
        not out.finite[i]
        or out.still[i]
        or count <= verdict.chance_votes(vectors, grid.bins)
        or verdict.near_border(int(out.cells[i]), grid.bins)
        or out.ratios[i] < verdict.MIN_INLIERS
    ):
        return None
    mode = grid.rotvec(int(out.cells[i]), solver.geometry)

    def candidate(rotvec: Array, ratio: float, refined: Refined | None) -> Candidate:
        share = count / vectors
        return Candidate(
            rotvec, mode, grid, max_angle, count, share, True, refined, out.inliers[i], ratio
        )

    covariance = out.covariances[i] if out.solved[i] else None
    refined = Refined(out.rotvecs[i], float(out.sigmas[i]), covariance, np.empty((2, 0)))
    first = candidate(refined.rotvec, float(out.ratios[i]), refined)
    second = None
    distance = np.abs(out.seconds[i, :3] - refined.rotvec).max()
    if out.seconds[i, 3] >= 0 and distance > verdict.DISTANT_BINS * grid.bin_size:
        second = candidate(out.seconds[i, :3], float(out.seconds[i, 3]), None)
    points = Correspondences(np.empty((6, 0)), estimator.dense_grid.points, False)
    return solver._judge(first, second, points)
