"""A noise level as input of a convex potential, through terms that cannot break convexity."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class NoiseScales(nn.Module):
    """Noise level -> per layer and channel: scale of V_k, shift of b_k, positive scale of h_k.

    Starts as the identity (scales 1, shifts 0).
    """

    def __init__(self, noise_range: tuple[float, float], channels: Sequence[int]) -> None:
        super().__init__()
        low, high = noise_range
        if not 0 < low < high:
            raise ValueError(f"noise_range must satisfy 0 < low < high, got {noise_range}")
        self.low, self.high = float(low), float(high)
        self.channels = tuple(channels)
        self.body = nn.Sequential(nn.Linear(2, 64), nn.SiLU())
        self.out = nn.Linear(64, 3 * sum(self.channels))
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, sigma: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        """``sigma``: (B,). One (scale, shift, head scale) triple of (B, channels) per layer."""
        position = torch.log(sigma / self.low) / math.log(self.high / self.low) * 2 - 1
        flat = self.out(self.body(torch.stack([position, sigma / self.high], dim=1)))
        scale, shift, head = flat.split(sum(self.channels), dim=1)
        parts = [t.split(self.channels, dim=1) for t in (1 + scale, shift, torch.exp(head))]
        return list(zip(*parts, strict=True))
