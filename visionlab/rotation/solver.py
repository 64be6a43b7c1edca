"""From vectors to a judged rotation: widen, vote, refine, look twice."""

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from visionlab.rotation import refinement, so3, verdict
from visionlab.rotation.estimate import RotationEstimate, Status
from visionlab.rotation.inputs import Correspondences
from visionlab.rotation.joint import JointFit, refine_joint
from visionlab.rotation.lines import Geometry, Grid, lines_from_plane
from visionlab.rotation.refinement import Refined, refine
from visionlab.rotation.voting import Search, quantise_weights, vote

Array = NDArray[np.float64]
Refine = Literal["none", "irls", "joint"]
BackendName = Literal["auto", "numpy", "numba", "cuda"]


@dataclass(frozen=True, eq=False)
class Candidate:
    """One rotation with the evidence for it."""

    rotvec: Array
    mode: Array
    """(3,) centre of the winning cell, rad."""
    grid: Grid
    max_angle: float
    votes: int = 0
    share: float = 0.0
    trusted: bool = False
    refined: Refined | None = None
    inliers: NDArray[np.bool_] | None = None
    inlier_ratio: float = 0.0


@dataclass(frozen=True, eq=False)
class Solver:
    """The settings of `RotationEstimator` that matter once vectors are gathered."""

    focal: float
    ranges: tuple[tuple[float, Grid], ...]
    geometry: Geometry
    search: Search
    refine: Refine
    sigma: float | None
    second_look: bool
    backend: BackendName

    def __call__(
        self,
        votes: Correspondences,
        dense: Correspondences,
        prior: Any = None,
        *,
        on_gpu: bool = False,
    ) -> RotationEstimate:
        """Estimate from voting vectors and the denser ones of the refinement."""
        centre = _prior_rotvec(prior)
        if len(votes) < verdict.MIN_VECTORS:
            return RotationEstimate(
                rotvec=np.zeros(3) if centre is None else centre,
                status=Status.LOW_TEXTURE,
                message=f"only {len(votes)} usable vectors, {verdict.MIN_VECTORS} are needed",
                points=dense.points,
                inliers=np.zeros(len(dense), bool),
            )
        if np.array_equal(dense.rows[:2], dense.rows[2:4]):
            return RotationEstimate(
                rotvec=np.zeros(3),
                status=Status.DEGENERATE,
                message="the flow is zero everywhere: duplicate frames, hence the identity",
                inlier_ratio=1.0,
                points=dense.points,
                inliers=np.ones(len(dense), bool),
                max_angle=self.ranges[0][0],
            )
        backend = self._backend(on_gpu)
        tried: list[Candidate] = []
        for max_angle, grid in self.ranges:
            tried.append(self._candidate(votes, dense, grid, max_angle, centre, backend))
            if tried[-1].trusted:
                break
        best = tried[-1] if tried[-1].trusted else max(tried, key=_evidence)
        second = self._second(best, votes, dense, centre, backend)
        estimate = self._judge(best, second, dense)
        if self.refine != "joint" or best.refined is None:
            return estimate
        fit = refine_joint(
            votes.rows,
            dense.rows,
            best.mode,
            best.refined,
            heading=prior.heading if isinstance(prior, RotationEstimate) else None,
        )
        return _with_parallax(estimate, fit)

    def _backend(self, on_gpu: bool) -> str:
        if self.backend == "auto" and not on_gpu:
            return "numba"
        from visionlab.rotation.native import choose_backend

        return choose_backend(self.backend, on_gpu=on_gpu)

    def _candidate(
        self,
        votes: Correspondences,
        dense: Correspondences,
        grid: Grid,
        max_angle: float,
        centre: Array | None,
        backend: str,
    ) -> Candidate:
        """Vote in one range around ``centre``, then refine on the dense vectors."""
        rows = votes.rows
        if centre is not None:
            rows = np.concatenate([rows[:2], turn(rows[2:4], centre)])
        lines = voting_lines(rows, grid, self.geometry, backend)
        weights = quantise_weights(votes.rows[5]) if votes.weighted else None
        cell, count = _cast_votes(lines, weights, grid.bins, self.search, backend)
        if count == 0:
            nothing = np.zeros(3) if centre is None else centre
            return Candidate(nothing, nothing, grid, max_angle)
        mode = grid.rotvec(cell, self.geometry)
        if centre is not None:
            mode = so3.log(so3.exp(mode) @ so3.exp(centre))
        share = count / (len(votes) if weights is None else int(weights.sum(dtype=np.int64)))
        trusted = share * len(votes) > verdict.chance_votes(len(votes), grid.bins)
        trusted = trusted and not verdict.near_border(cell, grid.bins)
        if self.refine == "none":
            return Candidate(mode, mode, grid, max_angle, count, share, trusted)
        refined = self._refined(dense, mode, grid)
        inliers = refined.inliers()
        ratio = float(dense.rows[5] @ inliers / dense.rows[5].sum())
        trusted = trusted and ratio >= verdict.MIN_INLIERS
        return Candidate(
            refined.rotvec, mode, grid, max_angle, count, share, trusted, refined, inliers, ratio
        )

    def _refined(self, dense: Correspondences, mode: Array, grid: Grid) -> Refined:
        first = max(refinement.START_SCALE, 2 * grid.bin_size * self.focal)
        twin: Literal["numpy", "numba"] = "numpy" if self.backend == "numpy" else "numba"
        return refine(dense.rows, mode, first_scale=first, scale=self.sigma, backend=twin)

    def _second(
        self,
        best: Candidate,
        votes: Correspondences,
        dense: Correspondences,
        centre: Array | None,
        backend: str,
    ) -> Candidate | None:
        """The best rotation among the votes that the first does not explain, if any."""
        if not self.second_look or best.refined is None:
            return None
        if best.inlier_ratio > verdict.CLEAR_SHARE:
            return None
        left = np.square(refinement.residuals(best.rotvec, votes.rows)).sum(0)
        rest = left > best.refined.reach**2
        if rest.sum() < verdict.MIN_VECTORS:
            return None
        others = Correspondences(
            np.ascontiguousarray(votes.rows[:, rest]), votes.points[rest], votes.weighted
        )
        second = self._candidate(others, dense, best.grid, best.max_angle, centre, backend)
        apart = np.abs(second.rotvec - best.rotvec).max()
        # nearer than that it is the halo of near points around the same answer
        return second if apart > verdict.DISTANT_BINS * best.grid.bin_size else None

    def _judge(
        self, best: Candidate, second: Candidate | None, dense: Correspondences
    ) -> RotationEstimate:
        status, message = self._status(best, second)
        refined = best.refined
        return RotationEstimate(
            rotvec=best.rotvec,
            status=status,
            message=message,
            votes=best.votes,
            peak_share=best.share,
            inlier_ratio=best.inlier_ratio,
            covariance=None if refined is None else refined.covariance,
            sigma=0.0 if refined is None else refined.sigma,
            inliers=best.inliers,
            points=dense.points,
            second=None if second is None else second.rotvec,
            second_inlier_ratio=0.0 if second is None else second.inlier_ratio,
            max_angle=best.max_angle,
        )

    def _status(self, best: Candidate, second: Candidate | None) -> tuple[Status, str]:
        asked = self.ranges[0][0]
        if not best.trusted:
            return Status.OUT_OF_RANGE, (
                f"no rotation within {self.ranges[-1][0]:.3g} rad explains the flow: "
                f"{best.share:.1%} of the votes, {best.inlier_ratio:.1%} inliers"
            )
        if best.refined is not None and verdict.is_loose(best.refined.covariance):
            return Status.DEGENERATE, "the vectors do not fix the rotation about every axis"
        if second is not None and (
            second.inlier_ratio > verdict.AMBIGUOUS_RATIO * best.inlier_ratio
        ):
            return Status.AMBIGUOUS, (
                f"a second rotation explains {second.inlier_ratio:.0%} of the vectors, "
                f"the first {best.inlier_ratio:.0%}"
            )
        if best.max_angle > asked:
            return Status.OK, f"range widened from {asked:.3g} to {best.max_angle:.3g} rad"
        return Status.OK, ""


def _with_parallax(estimate: RotationEstimate, fit: JointFit) -> RotationEstimate:
    """The estimate with the joint answer where its gate accepts parallax."""
    if not fit.accepted:
        return replace(estimate, gate=fit.gate, static=fit.static)
    return replace(
        estimate,
        rotvec=fit.rotvec,
        covariance=fit.covariance,
        joint=True,
        gate=fit.gate,
        heading=fit.heading,
        parallax=fit.parallax,
        static=fit.static,
    )


def _evidence(candidate: Candidate) -> tuple[float, float]:
    return candidate.inlier_ratio, candidate.share


def _prior_rotvec(prior: Any) -> Array | None:
    """(3,) rotation vector of a prior given as one, or as an estimate.

    Raises:
        ValueError: neither.
    """
    if prior is None:
        return None
    rotvec = np.asarray(prior.rotvec if isinstance(prior, RotationEstimate) else prior, np.float64)
    if rotvec.shape != (3,) or not np.isfinite(rotvec).all():
        raise ValueError(
            "prior must be a RotationEstimate or a finite rotation vector (3,) in rad, "
            f"got {prior!r}"
        )
    return rotvec if rotvec.any() else None


def turn(plane1: Array, rotvec: Array) -> Array:
    """(2, N) plane coordinates of rays of frame i+1 seen from axes turned back by ``rotvec``.

    With ``p = R q`` and ``q' = R_prior q`` the remaining rotation is ``R R_prior^-1``.
    """
    moved = so3.exp(rotvec) @ np.stack([plane1[0], plane1[1], np.ones(plane1.shape[1])])
    with np.errstate(all="ignore"):
        return np.where(moved[2] > 0, moved[:2] / moved[2], np.nan)


def voting_lines(rows: Array, grid: Grid, geometry: Geometry, backend: str) -> Array:
    """Lines (N, 4) of rows x, y, u, v; by NumPy, or by its bit-equal numba twin."""
    if backend == "numpy":
        return lines_from_plane(rows[:2].T, rows[2:4].T, grid=grid, geometry=geometry)
    from visionlab.rotation.lines_numba import lines_from_rows

    lines: Array = lines_from_rows(rows, grid.bin_size, float(grid.half), geometry == "exact")
    return lines


def _cast_votes(
    lines: Array, weights: NDArray[np.uint32] | None, bins: int, search: Search, backend: str
) -> tuple[int, int]:
    """Winner cell and votes of one frame's lines on the chosen backend."""
    if backend != "cuda":
        winner = vote(lines, weights, bins=bins, search=search, backend=backend)  # type: ignore[arg-type]
        return int(winner.cell), int(winner.votes)
    import torch

    from visionlab.rotation.op import hough_vote

    counts = None if weights is None else torch.from_numpy(weights.astype(np.int32)[None]).cuda()
    found = hough_vote(torch.from_numpy(lines[None]).cuda(), counts, bins=bins)
    return int(found.cell[0]), int(found.votes[0])
