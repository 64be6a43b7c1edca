"""Batch normalisation over the whole batch of all ranks, on any device.

torch's own SyncBatchNorm refuses tensors on a CPU.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


class GlobalBatchNorm1d(nn.BatchNorm1d):
    """``nn.BatchNorm1d`` of features (B, D) that sees the batches of all ranks as one.

    So training on several ranks equals training on one with the same global batch, and the
    running statistics are the same on every rank. In one process it is ``nn.BatchNorm1d``.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(B, D) -> (B, D); ranks may hold batches of different sizes."""
        together = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
        if not (self.training and together):
            return super().forward(input)
        self._check_input_dim(input)
        count, mean, variance = _moments(input.float())
        with torch.no_grad():
            self._track(count, mean, variance)
        out = (input - mean) * torch.rsqrt(variance + self.eps)
        if self.affine:
            out = out * self.weight + self.bias
        return out.to(input.dtype)

    def _track(self, count: Tensor, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        share = self.momentum or 1.0 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance * count / (count - 1).clamp(min=1), share)


def _moments(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Number of rows, mean and biased variance (D,) over all ranks, differentiable."""
    count = features.new_tensor(float(len(features)))
    dist.all_reduce(count)
    mean = _SumOverRanks.apply(features.sum(0)) / count
    variance = _SumOverRanks.apply((features - mean).square().sum(0)) / count
    return count, mean, variance


class _SumOverRanks(torch.autograd.Function):
    """All-reduce whose gradient is the sum of the gradients of all ranks."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total
