"""``visionlab::hough_vote``: the vote as a torch op, on CPU (numba) and CUDA tensors alike.

The op is defined here, with its CPU and fake kernels. Its CUDA kernel is registered by the prebuilt
library where there is one, else here through NVRTC (`native`). Integer votes need no gradient.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from visionlab.rotation import native, voting
from visionlab.rotation.nvrtc import MAX_BINS

if TYPE_CHECKING:
    import torch
    from torch._ops import OpOverload

NAME = "visionlab::hough_vote"
SCHEMA = "(Tensor lines, Tensor? weights, int bins) -> Tensor"


class TensorWinner(NamedTuple):
    """The fullest cell of each frame, on the device of the lines (`voting.Winner` as tensors)."""

    cell: torch.Tensor
    """(B,) int64 flat index ``(ix * bins + iy) * bins + iz``; -1 where no line crosses the box."""
    votes: torch.Tensor
    """(B,) int64 sum of the weights of the lines that cross it."""


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
    result = registered_op()(lines.detach().contiguous(), weights, bins)
    return TensorWinner(result[:, 0], result[:, 1])


@functools.cache
def registered_op() -> OpOverload:
    """Define the op and register its kernels, once per process."""
    import torch

    torch.library.define(NAME, SCHEMA)
    torch.library.impl(NAME, "cpu", _vote_cpu)
    torch.library.register_fake(NAME, _vote_fake)
    if not native.load_prebuilt().usable:
        torch.library.impl(NAME, "cuda", _vote_cuda)
    return torch.ops.visionlab.hough_vote.default


def _vote_cpu(lines: torch.Tensor, weights: torch.Tensor | None, bins: int) -> torch.Tensor:
    import torch

    counts = None if weights is None else np.maximum(weights.numpy(), 0).astype(np.uint32)
    threads = min(torch.get_num_threads(), max(len(lines), 1))
    winner = voting.vote(lines.numpy(), counts, bins=bins, num_threads=threads)
    return torch.from_numpy(np.stack([winner.cell, winner.votes], -1))


def _vote_cuda(lines: torch.Tensor, weights: torch.Tensor | None, bins: int) -> torch.Tensor:
    native.source()
    return native.vote_nvrtc(lines, weights, bins)


def _vote_fake(lines: torch.Tensor, weights: torch.Tensor | None, bins: int) -> torch.Tensor:
    import torch

    return lines.new_empty((lines.shape[0], 2), dtype=torch.int64)
