"""The vote and the refinement as torch ops, on CPU (numba) and CUDA tensors alike.

``visionlab::hough_vote`` and ``visionlab::so3_refine`` are defined here, with their CPU and fake
kernels. Their CUDA kernels are registered by the prebuilt library where there is one, else here
through NVRTC (`native`). Neither has a gradient: votes are integers, the refinement is a minimum.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from visionlab.rotation import native, refinement, voting
from visionlab.rotation.nvrtc import MAX_BINS, REFINE_FIELDS

if TYPE_CHECKING:
    import torch

VOTE = "visionlab::hough_vote"
REFINE = "visionlab::so3_refine"
SCHEMAS = {
    VOTE: "(Tensor lines, Tensor? weights, int bins) -> Tensor",
    REFINE: "(Tensor rows, Tensor? counts, Tensor start, float first_scale, float scale) -> Tensor",
}
PYRAMID_ABOVE = (
    200  # bins; on the CPU both searches find the same cell, from here the pyramid sooner
)


class TensorWinner(NamedTuple):
    """The fullest cell of each frame, on the device of the lines (`voting.Winner` as tensors)."""

    cell: torch.Tensor
    """(B,) int64 flat index ``(ix * bins + iy) * bins + iz``; -1 where no line crosses the box."""
    votes: torch.Tensor
    """(B,) int64 sum of the weights of the lines that cross it."""


class TensorRefined(NamedTuple):
    """Refined rotations of B frames, on the device of the vectors."""

    rotvec: torch.Tensor
    """(B, 3) rad."""
    sigma: torch.Tensor
    """(B,) residual scale, px per component."""
    covariance: torch.Tensor
    """(B, 3, 3) rad^2; zero where not solved."""
    solved: torch.Tensor
    """(B,) bool; False where the vectors do not fix the rotation."""


def hough_vote(
    lines: torch.Tensor, weights: torch.Tensor | None = None, *, bins: int
) -> TensorWinner:
    """Find the cell of rotation space that most lines cross, for each frame of a batch.

    The rule, its tie-break included, is that of `voting`, bit for bit, on every device. On CUDA the
    work is queued on the current stream.

    Args:
        lines: (B, N, 4) float64 in index units, see `lines.lines_from_plane`.
        weights: (B, N) int32 votes per line, those <= 0 drop it; one each without. Their sum over a
            frame stays below 2^32.
        bins: cells per axis.

    Raises:
        TypeError: lines that are not float64, weights that are not int32.
        ValueError: shapes or devices that do not fit, bins outside 1..1625.
        NativeUnavailable: CUDA tensors where no CUDA kernel can run.
    """
    import torch

    if lines.dtype != torch.float64:
        raise TypeError(f"lines must be float64, got {lines.dtype}; votes are compared bit for bit")
    if lines.ndim != 3 or lines.shape[-1] != 4:
        raise ValueError(f"lines must have shape (B, N, 4), got {tuple(lines.shape)}")
    if weights is not None:
        if weights.dtype != torch.int32:
            raise TypeError(f"weights must be int32 votes per line, got {weights.dtype}")
        if weights.shape != lines.shape[:2] or weights.device != lines.device:
            raise ValueError(
                f"weights of shape {tuple(weights.shape)} on {weights.device} do not fit lines of "
                f"shape {tuple(lines.shape)} on {lines.device}"
            )
        weights = weights.contiguous()
    if not 0 < bins <= MAX_BINS:
        raise ValueError(f"bins per axis must lie in 1..{MAX_BINS}, got {bins}")
    lines = lines.detach() if lines.requires_grad else lines
    result = registered_ops()[VOTE](lines.contiguous(), weights, bins)
    return TensorWinner(*result.unbind(1))


def so3_refine(
    rows: torch.Tensor,
    start: torch.Tensor,
    *,
    first_scale: float,
    scale: float | None = None,
    counts: torch.Tensor | None = None,
) -> TensorRefined:
    """Refine the camera rotations of B frames at once; see `refinement.refine` for the method.

    Args:
        rows: (B, 6, N) float64, see `refinement.refine`.
        start: (B, 3) rad.
        first_scale: px, about the width of the start's error.
        scale: final residual scale in px; from the residuals of each frame where it is None.
        counts: (B,) int32 in 0..N: only the first so many vectors of a frame are in use.

    Raises:
        TypeError: a wrong dtype.
        ValueError: shapes or devices that do not fit, scales that are not positive.
        NativeUnavailable: CUDA tensors where no CUDA kernel can run.
    """
    import torch

    if rows.dtype != torch.float64 or start.dtype != torch.float64:
        raise TypeError(f"rows and start must be float64, got {rows.dtype} and {start.dtype}")
    if rows.ndim != 3 or rows.shape[1] != 6 or start.shape != (len(rows), 3):
        raise ValueError(
            "rows must have shape (B, 6, N) and start (B, 3), got "
            f"{tuple(rows.shape)} and {tuple(start.shape)}"
        )
    if start.device != rows.device:
        raise ValueError(f"start lies on {start.device}, but rows on {rows.device}")
    if counts is not None:
        if counts.dtype != torch.int32:
            raise TypeError(f"counts must be int32, got {counts.dtype}")
        if counts.shape != (len(rows),) or counts.device != rows.device:
            raise ValueError(
                f"counts of shape {tuple(counts.shape)} on {counts.device} do not fit "
                f"{len(rows)} frames on {rows.device}"
            )
        counts = counts.contiguous()
    if first_scale <= 0 or (scale is not None and scale <= 0):
        raise ValueError(f"scales must be positive numbers of px, got {first_scale} and {scale}")
    result = registered_ops()[REFINE](
        rows.detach().contiguous(), counts, start.detach().contiguous(), first_scale, scale or 0.0
    )
    covariance = result[:, [4, 5, 6, 5, 7, 8, 6, 8, 9]].unflatten(-1, (3, 3))
    return TensorRefined(result[:, :3], result[:, 3], covariance, result[:, 10] > 0)


@functools.cache
def registered_ops() -> dict[str, Any]:
    """Define the ops and register their kernels, once per process; overloads by name."""
    import torch

    kernels: dict[str, tuple[Callable[..., torch.Tensor], ...]] = {
        VOTE: (_vote_cpu, _vote_fake, native.vote_nvrtc),
        REFINE: (_refine_cpu, _refine_fake, native.refine_nvrtc),
    }
    for name, (cpu, fake, _) in kernels.items():
        torch.library.define(name, SCHEMAS[name])
        torch.library.impl(name, "cpu", cpu)
        torch.library.register_fake(name, fake)
    if not native.load_prebuilt().usable:
        for name, (_, _, cuda) in kernels.items():
            torch.library.impl(name, "cuda", cuda)
    namespace = torch.ops.visionlab
    return {name: getattr(namespace, name.split("::")[1]).default for name in SCHEMAS}


def _vote_cpu(lines: torch.Tensor, weights: torch.Tensor | None, bins: int) -> torch.Tensor:
    import torch

    counts = None if weights is None else np.maximum(weights.numpy(), 0).astype(np.uint32)
    threads = min(torch.get_num_threads(), max(len(lines), 1))
    search: voting.Search = "pyramid" if bins > PYRAMID_ABOVE else "full"
    winner = voting.vote(lines.numpy(), counts, bins=bins, search=search, num_threads=threads)
    return torch.from_numpy(np.stack([winner.cell, winner.votes], -1))


def _vote_fake(lines: torch.Tensor, weights: torch.Tensor | None, bins: int) -> torch.Tensor:
    import torch

    return lines.new_empty((lines.shape[0], 2), dtype=torch.int64)


def _refine_cpu(
    rows: torch.Tensor,
    counts: torch.Tensor | None,
    start: torch.Tensor,
    first_scale: float,
    scale: float,
) -> torch.Tensor:
    import torch

    out = np.zeros((len(rows), REFINE_FIELDS))
    for i, (vectors, centre) in enumerate(zip(rows.numpy(), start.numpy())):
        used = vectors if counts is None else vectors[:, : int(counts[i])]
        found = refinement.refine(
            np.ascontiguousarray(used), centre, first_scale=first_scale, scale=scale or None
        )
        out[i, :3], out[i, 3] = found.rotvec, found.sigma
        if found.covariance is not None:
            out[i, 4:10] = found.covariance[np.triu_indices(3)]
            out[i, 10] = 1.0
    return torch.from_numpy(out)


def _refine_fake(
    rows: torch.Tensor,
    counts: torch.Tensor | None,
    start: torch.Tensor,
    first_scale: float,
    scale: float,
) -> torch.Tensor:
    return rows.new_empty((rows.shape[0], REFINE_FIELDS))
