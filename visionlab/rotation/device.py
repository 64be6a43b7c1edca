"""Estimates for a batch of flows where they lie: everything but the verdict runs on the device.

`estimate_batch` gives what `RotationEstimator` gives frame by frame: the same vectors, bit-equal
lines and votes, and rotations that differ by rounding only. The device answers for the asked range,
second look included; frames that need more (a wider range, a prior, joint refinement) or less (too
few vectors, duplicate frames) go through the estimator itself.
"""
# this module is torch; `estimator` imports it on first use

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visionlab.rotation import batched, refinement, verdict
from visionlab.rotation.estimate import RotationEstimate
from visionlab.rotation.inputs import Correspondences, PixelGrid, check_flow
from visionlab.rotation.refinement import Refined
from visionlab.rotation.solver import Candidate, Solver
from visionlab.rotation.voting import WEIGHT_LEVELS

if TYPE_CHECKING:
    from visionlab.rotation.estimator import RotationEstimator

CHUNK = 512  # frames at once: 0.6 GB of work space on a grid of 5,184 vectors


class Vectors(NamedTuple):
    """Vectors of B frames on one pixel grid; those not in use have weight 0 and no motion."""

    rows: Tensor
    """(B, 6, N) float64, see `inputs`."""
    points: NDArray[np.float64]
    """(N, 2) px."""
    weighted: bool
    complete: bool
    """Whether all are known to be in use."""

    @property
    def used(self) -> Tensor:
        """(B, N) bool."""
        return self.rows[:, 5] > 0

    def still(self) -> Tensor:
        """(B,) bool: no vector moves, the frames are duplicates."""
        return (self.rows[:, :2] == self.rows[:, 2:4]).flatten(1).all(1)


class Evidence(NamedTuple):
    """What speaks for one rotation in each of B frames."""

    cell: Tensor
    votes: Tensor
    cast: Tensor
    """(B,) sum of all weights."""
    voters: Tensor
    """(B,) number of vectors that voted."""
    refined: batched.BatchRefined | None


def estimate_batch(
    estimator: "RotationEstimator",
    flows: Any,
    masks: Any = None,
    *,
    weights: Any = None,
    priors: Sequence[Any] | None = None,
) -> list[RotationEstimate]:
    """Estimate every frame of flows (B, H, W, 2) on their device; see `RotationEstimator.batch`.

    Args:
        estimator: its settings are used; what the device cannot settle goes through it.
        flows: (B, H, W, 2) px, floating point; from the host they go to the current GPU where the
            estimator's backend is ``cuda``.
        masks: (B, H, W), nonzero marks the vectors to use.
        weights: (B, H, W) confidences >= 0.
        priors: a prior or None for each frame.

    Raises:
        TypeError: flow that is not floating point.
        ValueError: wrong shape or size, NaN or inf in use, nothing left by mask or weights.
    """
    flows = torch.as_tensor(flows)
    if estimator.solver.backend == "cuda":
        flows = flows.cuda()
    selections = [None if s is None else torch.as_tensor(s) for s in (masks, weights)]
    estimates: list[RotationEstimate] = []
    for first in range(0, len(flows), CHUNK):
        part = slice(first, first + CHUNK)
        chosen = [None if s is None else s[part].to(flows.device) for s in selections]
        estimates += _estimate_chunk(
            estimator, flows[part], chosen[0], chosen[1], priors[part] if priors else None
        )
    return estimates


def _estimate_chunk(
    estimator: "RotationEstimator",
    flows: Tensor,
    masks: Tensor | None,
    weights: Tensor | None,
    priors: Sequence[Any] | None,
) -> list[RotationEstimate]:
    _check(estimator, flows, masks, weights)
    solver = estimator.solver
    settled: list[RotationEstimate | None] = [None] * len(flows)
    if solver.refine != "joint":
        votes = gather(estimator.voting_grid, flows, masks, weights)
        dense = votes
        if solver.refine != "none" and estimator.dense_grid.window != estimator.voting_grid.window:
            dense = gather(estimator.dense_grid, flows, masks, weights)
        settled = _settle(solver, votes, dense)
    for i, estimate in enumerate(settled):
        prior = None if priors is None else priors[i]
        if estimate is None or prior is not None:
            selection = [None if s is None else s[i] for s in (masks, weights)]
            settled[i] = estimator(flows[i], selection[0], weights=selection[1], prior=prior)
    return settled  # type: ignore[return-value]


def _check(
    estimator: "RotationEstimator", flows: Tensor, masks: Tensor | None, weights: Tensor | None
) -> None:
    """The checks of `inputs.check_flow`, one look at the device for all frames."""
    suspect = torch.zeros(len(flows), dtype=torch.bool, device=flows.device)
    suspect[:1] = True  # shapes and dtypes are the same in all frames
    suspect |= ~torch.isfinite(flows.flatten(1).sum(1))
    if masks is not None:
        suspect |= ~(masks.flatten(1) != 0).any(1)
    if weights is not None:
        flat = weights.flatten(1)
        suspect |= ~(flat > 0).any(1) | ~(torch.isfinite(flat) & (flat >= 0)).all(1)
    for i in torch.nonzero(suspect.cpu())[:, 0].tolist():
        selected = [None if s is None else s[i] for s in (masks, weights)]
        check_flow(flows[i], estimator.camera, *selected)


def gather(
    grid: PixelGrid, flows: Tensor, masks: Tensor | None = None, weights: Tensor | None = None
) -> Vectors:
    """`PixelGrid.gather` for a batch, on its device, bit-equal to it."""
    still, camera = torch.from_numpy(grid._rows).to(flows.device), grid.camera
    window = (slice(None), *grid.window)
    rows = still.repeat(len(flows), 1, 1)
    sample = flows[window].flatten(1, 2)
    if camera.model == "pinhole":
        rows[:, 2] += sample[..., 0] * (1 / camera.fx)
        rows[:, 3] += sample[..., 1] * (1 / camera.fy)
    else:  # lens distortion is inverted on the host
        moved = camera.normalise(grid.points + sample.cpu().numpy())
        rows[:, 2:4] = torch.from_numpy(moved).to(flows.device).mT
    used = torch.isfinite(rows).all(1)
    if masks is not None:
        used &= masks[window].flatten(1) != 0
    if weights is not None:
        rows[:, 5] = weights[window].flatten(1)
        used &= rows[:, 5] > 0
    unused = ~used[:, None]
    rows[:, :5] = torch.where(unused, torch.nan_to_num(still[[0, 1, 0, 1, 4]]), rows[:, :5])
    rows[:, 5:] = torch.where(unused, 0.0, rows[:, 5:])
    complete = masks is None and weights is None and camera.model == "pinhole"
    return Vectors(rows, grid.points, weights is not None, complete)


def _find(solver: Solver, votes: Vectors, dense: Vectors, voters: Tensor) -> Evidence:
    """Vote with the vectors ``voters`` (B, N) of ``votes``, then refine on the dense ones."""
    grid = solver.ranges[0][1]
    counts = voters.int()
    if votes.weighted:
        weight = votes.rows[:, 5] * voters
        top = weight.amax(1, keepdim=True)
        # tensor by tensor: a Python number over a tensor would be a product with the reciprocal
        level = torch.full_like(top, WEIGHT_LEVELS) / torch.where(top > 0, top, 1.0)
        counts = (weight * level).round().int()
    planes = (votes.rows[:, :2].mT, votes.rows[:, 2:4].mT)
    mode, winner = batched.vote(*planes, counts, grid=grid, geometry=solver.geometry)
    refined = None
    if solver.refine != "none":
        first_scale = max(refinement.START_SCALE, 2 * grid.bin_size * solver.focal)
        refined = batched.refine(
            dense.rows,
            mode,
            first_scale=first_scale,
            scale=solver.sigma,
            complete=dense.complete,
        )
    return Evidence(winner.cell, winner.votes, counts.sum(1), voters.sum(1), refined)


def _candidates(solver: Solver, evidence: Evidence, dense: Vectors) -> list[Candidate]:
    """The evidence on the host, each frame judged by the thresholds of `verdict`."""
    max_angle, grid = solver.ranges[0]
    refined = evidence.refined
    used = dense.used.cpu().numpy()
    cells, votes, cast, voters = (field.cpu().numpy() for field in evidence[:4])
    shares = votes / np.maximum(cast, 1)
    modes = grid.rotvec(np.maximum(cells, 0), solver.geometry)
    numbers = None
    if refined is not None:
        ratio = refined.inlier_ratio(dense.rows[:, 5])
        fields = (refined.rotvec, refined.sigma, refined.covariance, refined.solved, ratio)
        numbers = [f.cpu().numpy() for f in (*fields, refined.inliers())]
    found = []
    for i, mode in enumerate(modes):
        count, share = int(votes[i]), float(shares[i])
        enough = voters[i] >= verdict.MIN_VECTORS and count > 0
        trusted = enough and share * voters[i] > verdict.chance_votes(int(voters[i]), grid.bins)
        trusted = bool(trusted and not verdict.near_border(int(cells[i]), grid.bins))
        if count == 0:
            found.append(Candidate(np.zeros(3), np.zeros(3), grid, max_angle))
        elif numbers is None:
            found.append(Candidate(mode, mode, grid, max_angle, count, share, trusted))
        else:
            rotvec, sigma, covariance, solved, inlier_ratio, inliers = (n[i] for n in numbers)
            result = Refined(
                rotvec, float(sigma), covariance if solved else None, error=np.empty((2, 0))
            )
            trusted = trusted and bool(inlier_ratio >= verdict.MIN_INLIERS)
            evidence_for = (count, share, trusted, result, inliers[used[i]], float(inlier_ratio))
            found.append(Candidate(rotvec, mode, grid, max_angle, *evidence_for))
    return found


def _second_looks(
    solver: Solver, votes: Vectors, dense: Vectors, look: Evidence, firsts: list[Candidate]
) -> list[Candidate | None]:
    """`Solver._second` for all frames: rotations of what the first leaves unexplained."""
    if not solver.second_look or look.refined is None:
        return [None] * len(firsts)
    error = batched.residuals(batched.exp(look.refined.rotvec), votes.rows)
    unexplained = error.square().sum(1) > look.refined.reach()[:, None].square()
    again = _find(solver, votes, dense, votes.used & unexplained)
    distant = verdict.DISTANT_BINS * solver.ranges[0][1].bin_size
    seconds: list[Candidate | None] = []
    others = _candidates(solver, again, dense)
    for first, other, voters in zip(firsts, others, again.voters.tolist()):
        clear = first.inlier_ratio > verdict.CLEAR_SHARE or voters < verdict.MIN_VECTORS
        apart = np.abs(other.rotvec - first.rotvec).max()
        seconds.append(other if not clear and apart > distant else None)
    return seconds


def _settle(solver: Solver, votes: Vectors, dense: Vectors) -> list[RotationEstimate | None]:
    """Estimates of the frames for which the asked range holds the answer, None for the others."""
    look = _find(solver, votes, dense, votes.used)
    firsts = _candidates(solver, look, dense)
    seconds = _second_looks(solver, votes, dense, look, firsts)
    used, duplicates = dense.used.cpu().numpy(), dense.still().tolist()
    settled: list[RotationEstimate | None] = []
    for first, second, used_here, duplicate in zip(firsts, seconds, used, duplicates):
        if duplicate or not first.trusted:
            settled.append(None)
            continue
        vectors = Correspondences(np.empty((6, 0)), dense.points[used_here], dense.weighted)
        settled.append(solver._judge(first, second, vectors))
    return settled
