"""Camera rotation from optical flow: vote, refine, judge.

Reading order of one call: `inputs` gathers vectors on a grid, `lines` and `voting` find the fullest
cell of rotation space, `refinement` (or `joint`) takes it below the bin size, `verdict` judges it.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from math import isqrt, pi
from numbers import Real
from typing import Any, Literal, Self, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from visionlab.registry import suggest
from visionlab.rotation import verdict
from visionlab.rotation.camera import Camera
from visionlab.rotation.estimate import RotationEstimate
from visionlab.rotation.frames import can_solve, estimate_frames
from visionlab.rotation.inputs import PixelGrid, check_flow, gather_points
from visionlab.rotation.lines import Geometry, Grid
from visionlab.rotation.solver import BackendName, Refine, Solver
from visionlab.rotation.voting import Search, counter_bytes

Array = NDArray[np.float64]

WANTED_VECTORS = 300  # on small images the steps shrink until so many vectors vote
MAX_MEMORY = 2**28  # bytes of counters per thread
PRESETS: dict[str, dict[str, Any]] = {
    "fast": {"refine_step": 15, "second_look": False},
    "paper": {"geometry": "linear", "refine": "none", "widen": False, "second_look": False},
}


class RotationEstimator:
    """Estimate the camera's rotation between two frames from their optical flow.

    Args:
        camera: of the size of the flow.
        bin_size: rad; cells of the vote. The refinement goes far below it.
        max_angle: rad about each axis; the range that is searched first.
        grid_step: px between voting vectors; less on images too small for 300 of them.
        refine_step: px between the vectors of the refinement.
        geometry: ``exact``, or ``linear``: the paper's first-order rule.
        search: ``full`` or ``pyramid``; both find the same cell. The pyramid (branch and bound)
            wins on grids of more than about 200 bins and is no faster on the default one.
        refine: ``irls``: rotation alone; ``joint``: rotation and heading together, where the flow
            shows parallax; ``none``: the centre of the cell. The default was chosen by measurement:
            on all real images at hand ``irls`` is as accurate (EuRoC .0089 degree both) or better
            (a panned clip with coarse flow, .0195 against .0217) and takes .6 instead of 1.5 ms.
            Where the camera moves among near things, choose ``joint``: on simulated walking (S3)
            and driving (S4) it is two to three times as accurate.
        sigma: final residual scale in px, or ``auto``: from the residuals.
        widen: search wider ranges (.15, .35 rad) where the first holds no answer.
        second_look: look for a second, distant rotation among the vectors that the first leaves
            unexplained; without it nothing is ever ``ambiguous``.
        backend: of the vote; ``auto`` is CUDA for flow on a GPU and numba otherwise.
        num_threads: over the frames of a batch.

    Raises:
        ValueError: a range over 180 degrees, a bin larger than the range, a grid that would need
            too much memory, an unknown name.

    Example:
        >>> from visionlab.rotation import so3
        >>> from visionlab.rotation.scenes import make_scene
        >>> scene = make_scene("S0", seed=1)
        >>> estimate = RotationEstimator(scene.camera)(scene.flow)
        >>> bool(so3.angle_between(estimate.rotvec, scene.rotvec) < 2e-4), str(estimate.status)
        (True, 'ok')
    """

    def __init__(
        self,
        camera: Camera,
        bin_size: float = 1e-3,
        *,
        max_angle: float = 0.07,
        grid_step: int = 15,
        refine_step: int = 5,
        geometry: Geometry = "exact",
        search: Search = "full",
        refine: Refine = "irls",
        sigma: float | Literal["auto"] = "auto",
        widen: bool = True,
        second_look: bool = True,
        backend: BackendName = "auto",
        num_threads: int = 1,
    ) -> None:
        for name, value, known in (
            ("geometry", geometry, get_args(Geometry)),
            ("search", search, get_args(Search)),
            ("refine", refine, get_args(Refine)),
            ("backend", backend, get_args(BackendName)),
        ):
            if value not in known:
                raise ValueError(f"no {name} '{value}'. {suggest(value, known)}")
        for name, number in (
            ("grid_step", grid_step),
            ("refine_step", refine_step),
            ("num_threads", num_threads),
        ):
            if int(number) != number or number < 1:
                raise ValueError(f"{name} must be a whole number >= 1, got {number}")
        if sigma != "auto" and not 0 < float(sigma) < np.inf:
            raise ValueError(f"sigma must be 'auto' or a positive number of px, got {sigma}")
        if not isinstance(camera, Camera):
            raise TypeError(
                f"camera must be a visionlab.rotation.Camera, got {type(camera).__name__}; make "
                "one by Camera.from_fov(60, width, height) or Camera.from_file(path)"
            )
        first = _check_range(bin_size, max_angle, geometry, search)
        wider = [m for m in verdict.WIDER if widen and m > 1.2 * max_angle]
        self.camera, self.num_threads = camera, int(num_threads)
        self.solver = Solver(
            focal=camera.focal,
            ranges=(
                (max_angle, first),
                *((m, Grid.with_bins(first.bins, m, geometry)) for m in wider),
            ),
            geometry=geometry,
            search=search,
            refine=refine,
            sigma=None if sigma == "auto" else float(sigma),
            second_look=second_look,
            backend=backend,
        )
        finest = max(1, isqrt(camera.width * camera.height // WANTED_VECTORS))
        self.voting_grid = PixelGrid(camera, min(int(grid_step), finest))
        self.dense_grid = PixelGrid(camera, min(int(refine_step), finest))

    @classmethod
    def preset(cls, name: str, camera: Camera, **options: Any) -> Self:
        """An estimator with the options of a preset, single ones of which may be overruled.

        Args:
            name: ``fast`` refines on the voting vectors and never looks twice; ``paper`` is the
                published rule on our grid.

        Raises:
            ValueError: no such preset.
        """
        if name not in PRESETS:
            raise ValueError(f"no preset '{name}'. {suggest(name, PRESETS)}")
        return cls(camera, **(PRESETS[name] | options))

    @property
    def voting_points(self) -> Array:
        """(N, 2) px: the pixels whose vectors vote, e.g. to track only these."""
        return self.voting_grid.points

    def __call__(
        self,
        flow: Any,
        mask: Any = None,
        *,
        weights: Any = None,
        prior: "RotationEstimate | ArrayLike | None" = None,
    ) -> RotationEstimate:
        """Estimate from dense flow.

        Args:
            flow: (H, W, 2) px displacement from frame i to i+1, NumPy or torch, on any device.
            mask: (H, W), nonzero marks the vectors to use.
            weights: (H, W) confidences >= 0.
            prior: last frame's estimate or rotation vector (rad), about which to search.

        Raises:
            TypeError: flow that is not floating point.
            ValueError: wrong shape or size, NaN or inf in use, nothing left by mask or weights.
        """
        flow, mask, weights = check_flow(flow, self.camera, mask, weights)
        votes = self.voting_grid.gather(flow, mask, weights)
        dense = votes
        if self.solver.refine != "none" and self.dense_grid.window != self.voting_grid.window:
            dense = self.dense_grid.gather(flow, mask, weights)
        on_gpu = getattr(getattr(flow, "device", None), "type", "cpu") == "cuda"
        return self.solver(votes, dense, prior, on_gpu=on_gpu)

    def from_points(
        self,
        points0: Any,
        points1: Any,
        *,
        weights: Any = None,
        prior: "RotationEstimate | ArrayLike | None" = None,
    ) -> RotationEstimate:
        """Estimate from sparse tracks (N, 2) px in both frames; NaN marks lost tracks.

        Raises:
            ValueError: shapes that do not fit, infinite positions, unusable weights.
        """
        tracks = gather_points(self.camera, points0, points1, weights)
        return self.solver(tracks, tracks, prior)

    def batch(
        self,
        flows: Any,
        masks: Any = None,
        *,
        weights: Any = None,
        priors: Sequence["RotationEstimate | ArrayLike | None"] | None = None,
    ) -> list[RotationEstimate]:
        """Estimate every frame of flows (B, H, W, 2), frames in parallel over ``num_threads``.

        Equal to one call per frame: votes bit for bit, rotations up to rounding where frames run
        in one kernel (plain flow of a pinhole on several threads, or on a GPU).

        Raises:
            ValueError: flows that are not a batch, masks, weights or priors of another length.
        """
        if getattr(flows, "ndim", 0) != 4:
            raise ValueError(
                f"flows must have shape (frames, height, width, 2), got {np.shape(flows)}"
            )
        count = len(flows)
        for name, given in (("masks", masks), ("weights", weights), ("priors", priors)):
            if given is not None and len(given) != count:
                raise ValueError(f"{count} flows but {len(given)} {name}; give one per flow")
        on_gpu = getattr(getattr(flows, "device", None), "type", "cpu") == "cuda"
        if self.solver._backend(on_gpu) == "cuda":
            from visionlab.rotation.device import estimate_batch

            return estimate_batch(self, flows, masks, weights=weights, priors=priors)

        def one(i: int) -> RotationEstimate:
            return self(
                flows[i],
                None if masks is None else masks[i],
                weights=None if weights is None else weights[i],
                prior=None if priors is None else priors[i],
            )

        if self.num_threads == 1 or count < 2:
            return [one(i) for i in range(count)]
        plain = masks is None and weights is None and priors is None
        if plain and can_solve(self, flows):
            settled = estimate_frames(self, flows)
            return [one(i) if s is None else s for i, s in enumerate(settled)]
        with ThreadPoolExecutor(min(self.num_threads, count)) as pool:
            return list(pool.map(one, range(count)))


def _check_range(bin_size: float, max_angle: float, geometry: Geometry, search: Search) -> Grid:
    """The grid of a range, if it makes sense and fits into memory.

    Raises:
        ValueError: it does not; the message says what to change.
    """
    for name, value in (("bin_size", bin_size), ("max_angle", max_angle)):
        if not isinstance(value, Real):
            raise TypeError(f"{name} must be a number of radians, got {value!r}")
    if not 0 < max_angle < np.inf:
        raise ValueError(f"max_angle must be a positive number of radians, got {max_angle}")
    if max_angle > pi:
        raise ValueError(
            f"max_angle={max_angle:.6g} rad is {np.degrees(max_angle):.6g} degrees, over 180; "
            f"was it meant in degrees? {max_angle:.6g} degrees are {np.radians(max_angle):.4g} rad"
        )
    if not 0 < bin_size <= max_angle:
        raise ValueError(
            f"bin_size={bin_size:.6g} rad ({np.degrees(bin_size):.4g} degrees) must be positive "
            f"and no larger than the range max_angle={max_angle:.6g} rad "
            f"({np.degrees(max_angle):.4g} degrees)"
        )
    grid = Grid.for_range(bin_size, max_angle, geometry)
    needed = counter_bytes(grid.bins, search)
    if needed > MAX_MEMORY:
        raise ValueError(
            f"a grid of {grid.bins:,}^3 cells needs {needed / 2**30:.3g} GiB of counters per "
            f"thread (at most {MAX_MEMORY / 2**30} GiB); raise bin_size={bin_size} or lower "
            f"max_angle={max_angle}"
        )
    return grid
