"""Many frames at once, on the device of the flow: lines, votes and refinement as torch tensors.

Torch twins of `lines.lines_from_plane` (bit-equal, so the votes are too) and of
`refinement.irls_numpy` (the same passes in float64; answers agree to 1e-8 rad). Between them stands
the op `visionlab::hough_vote`. Nothing here waits for a GPU, so whole videos can be queued.

This module is torch; `estimator` imports it on first use.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from visionlab.rotation import op
from visionlab.rotation.lines import MAX_SLOPE, Geometry, Grid
from visionlab.rotation.refinement import (
    ANNEAL,
    INLIER_SIGMAS,
    MODE_SCALE,
    PASSES,
    SCALE_BOUNDS,
    THIN_ABOVE,
)

_SMALL = 1e-4  # below this angle (rad) the series are exact to 1e-16


class BatchRefined(NamedTuple):
    """Result of `refine`: `refinement.Refined` for B frames."""

    rotvec: Tensor
    """(B, 3) rad."""
    sigma: Tensor
    """(B,) residual scale, px per component."""
    information: Tensor
    """(B, 3, 3) 1/rad^2 at unit scale: the covariance is ``sigma^2 * inverse(information)``."""
    solved: Tensor
    """(B,) bool; False where the vectors do not fix the rotation, which then stays as it was."""
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


def log(matrix: Tensor) -> Tensor:
    """Rotation vectors (..., 3) of rotation matrices (..., 3, 3) of less than 3 rad."""
    sine = torch.stack(
        [
            matrix[..., 2, 1] - matrix[..., 1, 2],
            matrix[..., 0, 2] - matrix[..., 2, 0],
            matrix[..., 1, 0] - matrix[..., 0, 1],
        ],
        -1,
    )
    norm = torch.linalg.vector_norm(sine, dim=-1, keepdim=True)  # 2 sin(angle)
    trace = matrix.diagonal(dim1=-2, dim2=-1).sum(-1, keepdim=True)
    angle = torch.atan2(norm, trace - 1)
    small = norm < 1e-8
    return sine * torch.where(small, 0.5, angle / torch.where(small, 1.0, norm))


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
    """Refine B camera rotations at once; the method and its schedule are `refinement.refine`'s.

    Args:
        rows: (B, 6, N) float64, finite, see `refinement.refine`; weight 0 drops a vector.
        start: (B, 3) rad.
        first_scale: px, about the width of the start's error.
        scale: final residual scale in px; from the residuals of each frame where it is None.
        complete: promises that no weight is 0, which saves time on dense grids.
    """
    thin = _thinned(rows, complete)
    matrix = exp(start.double())
    target = rows.new_full((len(rows), 1), MODE_SCALE if scale is None else scale)
    information = rows.new_zeros((len(rows), 3, 3))
    solved = torch.ones(len(rows), dtype=torch.bool, device=rows.device)
    for it in range(PASSES):
        used = thin if it < ANNEAL else rows
        x, y, error = _linearise(matrix, used)
        if it == ANNEAL and scale is None:
            target = (1.4826 * _median(error, used[:, 5], 3 * target)).clamp(*SCALE_BOUNDS)
        shrink = it / (ANNEAL - 1)
        width = first_scale * (target / first_scale) ** shrink if it < ANNEAL else target
        s2 = width.square()
        robust = used[:, 5] * (s2 / (s2 + error.square().sum(1))).square()
        information, gradient = _normal_equations(x, y, error, used[:, 4], robust)
        step, regular = _solve(information, gradient)
        solved = solved & regular
        matrix = torch.where(solved[:, None, None], matrix @ exp(step), matrix)
    return BatchRefined(log(matrix), target[:, 0], information, solved, residuals(matrix, rows))


def _thinned(rows: Tensor, complete: bool) -> Tensor:
    """Every third of the vectors in use where a frame has many: what the annealing passes see."""
    if rows.shape[-1] <= THIN_ABOVE:
        return rows
    if complete:
        return rows[..., ::3].contiguous()
    used = rows[:, 5] > 0
    rank = used.cumsum(1) - 1
    many = used.sum(1, keepdim=True) > THIN_ABOVE
    kept = ~many | (rank % 3 == 0)
    return torch.cat([rows[:, :5], (rows[:, 5] * kept)[:, None]], 1)


def residuals(matrix: Tensor, rows: Tensor) -> Tensor:
    """(B, 2, N) px: observed minus predicted position in frame i+1 under rotations (B, 3, 3)."""
    return _linearise(matrix, rows)[2]


def _linearise(matrix: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Predicted plane coordinates x, y (B, N), ``q ~ R^T p``, and residuals (B, 2, N) px."""
    x0, y0 = rows[:, 0], rows[:, 1]
    column = matrix[..., None]  # (B, 3, 3, 1): the transpose by reading columns
    moved = [column[:, 0, j] * x0 + column[:, 1, j] * y0 + column[:, 2, j] for j in range(3)]
    x, y = moved[0] / moved[2], moved[1] / moved[2]
    return x, y, rows[:, 4:5] * torch.stack([rows[:, 2] - x, rows[:, 3] - y], 1)


def _normal_equations(
    x: Tensor, y: Tensor, error: Tensor, focal: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor]:
    """``J^T W J`` (B, 3, 3) and ``J^T W r`` (B, 3) of the Jacobian at the predicted points."""
    xy = x * y
    rows = (
        focal[:, None] * torch.stack([xy, -(1 + x * x), y], 1),
        focal[:, None] * torch.stack([1 + y * y, -xy, -x], 1),
    )
    information = sum((weight[:, None] * j) @ j.mT for j in rows)
    gradient = sum((j * (weight * r)[:, None]).sum(-1) for j, r in zip(rows, error.unbind(1)))
    return information, gradient  # type: ignore[return-value]


def _solve(information: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Solutions (B, 3), zero where the normal equations are singular, and where they are not."""
    rows = information.unbind(-2)
    adjugate = torch.stack([torch.linalg.cross(rows[i - 2], rows[i - 1]) for i in range(3)], -2)
    determinant = (rows[0] * adjugate[:, 0]).sum(-1)
    diagonal = information.diagonal(dim1=-2, dim2=-1).prod(-1)
    regular = determinant > 1e-12 * diagonal
    step = (adjugate @ gradient[..., None])[..., 0] / torch.where(regular, determinant, 1.0)[
        :, None
    ]
    return torch.where(regular[:, None], step, 0.0), regular


def _median(error: Tensor, weight: Tensor, reach: Tensor) -> Tensor:
    """Weighted median (B, 1) of |component| among residuals shorter than ``reach`` (B, 1)."""
    near = error.square().sum(1) < reach.square()
    size = torch.where(near[:, None], error.abs(), torch.inf).flatten(1)
    order = size.argsort(dim=-1, stable=True)
    share = (weight * near).repeat(1, 2).gather(-1, order).cumsum(-1)
    middle = torch.searchsorted(share, share[:, -1:] / 2).clamp_max(share.shape[-1] - 1)
    median = size.gather(-1, order).gather(-1, middle)
    return torch.where(torch.isfinite(median), median, 0.0)
