"""Many frames at once, on the device of the flow: lines, votes and refinement as torch tensors.

Lines are the torch twin of `lines.lines_from_plane`, bit-equal, so the votes are too. Votes and
refinement are the ops `visionlab::hough_vote` and `visionlab::so3_refine`. Nothing here waits for a
GPU, so whole videos can be queued.
"""
# this module is torch; `estimator` imports it on first use

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from visionlab.rotation import op
from visionlab.rotation.lines import MAX_SLOPE, Geometry, Grid
from visionlab.rotation.refinement import INLIER_SIGMAS, MODE_SCALE

_SMALL = 1e-4  # below this angle (rad) the series are exact to 1e-16


class BatchRefined(NamedTuple):
    """Result of `refine`: `refinement.Refined` for B frames."""

    rotvec: Tensor
    """(B, 3) rad."""
    sigma: Tensor
    """(B,) residual scale, px per component."""
    covariance: Tensor
    """(B, 3, 3) rad^2; zero where not solved."""
    solved: Tensor
    """(B,) bool; False where the vectors do not fix the rotation."""
    error: Tensor
    """(B, 2, N) residuals, px."""

    def reach(self) -> Tensor:
        """(B,) px: shorter residuals are inliers, as `refinement.Refined.reach`."""
        return INLIER_SIGMAS * self.sigma.clamp_min(MODE_SCALE)

    def inliers(self) -> Tensor:
        """(B, N) vectors within `reach`."""
        return self.error.square().sum(1) < self.reach()[:, None].square()

    def inlier_ratio(self, weight: Tensor) -> Tensor:
        """(B,) share of inliers, weighted by ``weight`` (B, N)."""
        total = weight.sum(-1).clamp_min(torch.finfo(weight.dtype).tiny)
        return (weight * self.inliers()).sum(-1) / total


def lines_from_plane(
    plane0: Tensor, plane1: Tensor, *, grid: Grid, geometry: Geometry = "exact"
) -> Tensor:
    """Voting lines (..., N, 4) of correspondences (..., N, 2) float64 on the plane z = 1.

    The operations of `lines.lines_from_plane` in its order. Each is rounded on its own, as each
    torch kernel stores its result; `_root` and `_divide` keep those two IEEE.
    """
    x, y = plane0.unbind(-1)
    u, v = plane1.unbind(-1)
    if geometry == "exact":
        n0, n1 = _root((x * x + y * y) + 1.0), _root((u * u + v * v) + 1.0)
        depth = n0 + n1
        dx, dy = (n1 * x + n0 * u) / depth, (n1 * y + n0 * v) / depth
        scale = 2.0 / (n0 * n1 + ((x * u + y * v) + 1.0))
        gx, gy, gz = (v - y) * scale, (x - u) * scale, (u * y - v * x) * scale
        px, py = gx - dx * gz, gy - dy * gz
    else:
        du, dv = u - x, v - y
        square = (x * x + y * y) + 1.0
        px = ((dv - (du * x) * y) + (dv * x) * x) / square
        py = -((du + (du * y) * y) - (dv * x) * y) / square
        dx, dy = x.expand_as(u), y.expand_as(v)
    half = float(grid.half)
    x0 = (_divide(px, grid.bin_size) - dx * half) + (half + 0.5)
    y0 = (_divide(py, grid.bin_size) - dy * half) + (half + 0.5)
    out = torch.stack([x0, dx, y0, dy], -1)
    usable = torch.isfinite(out).all(-1) & (dx * dx + dy * dy <= MAX_SLOPE * MAX_SLOPE)
    return torch.where(usable[..., None], out, torch.nan)


def _root(values: Tensor) -> Tensor:
    """Correctly rounded square root: CUDA's is; torch's on the CPU is off in one of 85 values."""
    return values.sqrt() if values.is_cuda else torch.from_numpy(np.sqrt(values.numpy()))


def _divide(values: Tensor, divisor: float) -> Tensor:
    """Correctly rounded quotient: on CUDA torch multiplies by the reciprocal of a Python number."""
    return values / torch.full((1,), divisor, dtype=values.dtype, device=values.device)


def decode(cell: Tensor, *, grid: Grid, geometry: Geometry = "exact") -> Tensor:
    """Rotation vectors (..., 3) in rad at the centres of flat cells; the identity for cell -1."""
    index = torch.stack([cell // grid.bins**2, cell // grid.bins % grid.bins, cell % grid.bins], -1)
    centre = (index - grid.half).double() * grid.bin_size
    centre = torch.where((cell >= 0)[..., None], centre, 0.0)
    if geometry == "linear":
        return centre
    norm = torch.linalg.vector_norm(centre, dim=-1, keepdim=True)
    safe = torch.where(norm > 0, norm, 1.0)
    return centre * torch.where(norm > 0, 2 * torch.atan(safe / 2) / safe, 1.0)


def exp(rotvec: Tensor) -> Tensor:
    """Rotation matrices (..., 3, 3) of rotation vectors (..., 3), as `so3.exp`."""
    square = rotvec.square().sum(-1)[..., None, None]
    angle = square.sqrt()
    small = angle < _SMALL
    safe = torch.where(small, 1.0, angle)
    first = torch.where(small, 1 - square / 6, torch.sin(safe) / safe)
    second = torch.where(small, 0.5 - square / 24, (1 - torch.cos(safe)) / (safe * safe))
    x, y, z = rotvec.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))
    eye = torch.eye(3, dtype=rotvec.dtype, device=rotvec.device)
    return eye + first * cross + second * (cross @ cross)


def vote(
    plane0: Tensor,
    plane1: Tensor,
    weights: Tensor | None = None,
    *,
    grid: Grid,
    geometry: Geometry = "exact",
) -> tuple[Tensor, op.TensorWinner]:
    """Rotation (B, 3) rad of the fullest cell of each frame, and that cell.

    Args:
        plane0: (N, 2) or (B, N, 2) float64 in frame i on the plane z = 1.
        plane1: (B, N, 2) in frame i+1.
        weights: (B, N) int32 votes per correspondence.
    """
    lines = lines_from_plane(plane0, plane1, grid=grid, geometry=geometry)
    winner = op.hough_vote(lines, weights, bins=grid.bins)
    return decode(winner.cell, grid=grid, geometry=geometry), winner


def refine(
    rows: Tensor,
    start: Tensor,
    *,
    first_scale: float,
    scale: float | None = None,
    complete: bool = False,
) -> BatchRefined:
    """Refine B camera rotations at once; the method is `refinement.refine`'s.

    Args:
        rows: (B, 6, N) float64, finite, see `refinement.refine`; weight 0 drops a vector.
        start: (B, 3) rad.
        first_scale: px, about the width of the start's error.
        scale: final residual scale in px; from the residuals of each frame where it is None.
        complete: promises that no weight is 0, which saves sorting them out.
    """
    packed, counts = (rows, None) if complete else _pack(rows)
    found = op.so3_refine(packed, start, first_scale=first_scale, scale=scale, counts=counts)
    return BatchRefined(*found, residuals(exp(found.rotvec), rows))


def _pack(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows with the vectors in use first, in their order, and how many these are (B,) int32."""
    used = rows[:, 5] > 0
    order = (~used).byte().argsort(dim=-1, stable=True)
    return rows.gather(-1, order[:, None].expand_as(rows)), used.sum(1, dtype=torch.int32)


def residuals(matrix: Tensor, rows: Tensor) -> Tensor:
    """(B, 2, N) px: observed minus predicted position in frame i+1 under rotations (B, 3, 3)."""
    x, y, u, v, focal, _ = rows.unbind(1)
    column = matrix[..., None]  # (B, 3, 3, 1); q ~ R^T p: the transpose by reading columns
    moved = [column[:, 0, j] * x + column[:, 1, j] * y + column[:, 2, j] for j in range(3)]
    return torch.stack([focal * (u - moved[0] / moved[2]), focal * (v - moved[1] / moved[2])], 1)
