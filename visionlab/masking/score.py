"""Input-dependent masks: a score per patch from the user's function, mixed with noise."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from visionlab.masking.base import Grid, Mask
from visionlab.masking.keys import Draws


class ScoreMask(Mask):
    """Keeps the patches with the largest ``weight * score + (1 - weight) * noise``.

    Scores and noise are first brought to zero mean and unit variance per image, so
    attention-guided and coloured masks compose: ``ScoreMask(score_fn=saliency,
    noise=create_mask("green"), weight=0.5)``.

    Args:
        score_fn: images (B, C, H, W) -> scores (B, L) or (B, rows, columns), float32 or float64.
            It runs without gradient.
        noise: strategy whose scores are mixed in; default: random.
        weight: 1 follows the scores alone, 0 the noise alone.
    """

    needs_images = True

    def __init__(
        self,
        grid: Grid | None = None,
        *,
        score_fn: Callable[[Tensor], Tensor],
        ratio: float = 0.75,
        noise: Mask | None = None,
        weight: float = 0.5,
    ) -> None:
        if not callable(score_fn):
            raise TypeError(f"score_fn is a function of the images, got {score_fn!r}")
        if not 0 <= weight <= 1:
            raise ValueError(f"the weight of the scores lies in [0, 1], got {weight}")
        from visionlab.masking.random import RandomMask

        self.score_fn, self.weight = score_fn, float(weight)
        self.noise: Mask = RandomMask(ratio=ratio) if noise is None else noise
        super().__init__(grid, ratio=ratio)

    def _bind(self, grid: Grid) -> None:
        super()._bind(grid)
        self.noise = self.noise.with_ratio(self.ratio).with_grid(grid)

    def scores(self, draws: Draws, images: Tensor | None = None) -> Tensor:
        """Scores of all patches; see `Mask.scores`."""
        if images is None:
            raise ValueError("a score mask depends on the images: pass images=... when drawing")
        noise = _standardise(self.noise.scores(draws, images))
        with torch.no_grad():
            scores = _check_scores(self.score_fn(images), draws.batch_size, self.bound_grid)
        return self.weight * _standardise(scores.to(noise)) + (1 - self.weight) * noise

    def _parameters(self) -> dict[str, Any]:
        name = getattr(self.score_fn, "__qualname__", type(self.score_fn).__qualname__)
        return {"score_fn": name, "weight": self.weight, "noise": self.noise.describe()}


def _check_scores(scores: Tensor, batch_size: int, grid: Grid) -> Tensor:
    """Scores as (B, L), in full precision and finite.

    Raises:
        TypeError: half precision; its many equal values would decide by place.
        ValueError: wrong shape, or not finite.
    """
    if scores.dtype in (torch.float16, torch.bfloat16):
        raise TypeError(
            f"mask scores and noise need float32 or float64, got {scores.dtype}: its ties would "
            "decide by "
            "place; compute them in full precision (outside autocast)"
        )
    if scores.shape not in {(batch_size, *grid), (batch_size, grid[0] * grid[1])}:
        raise ValueError(
            f"expected scores of shape {(batch_size, grid[0] * grid[1])} or {(batch_size, *grid)}, "
            f"got {tuple(scores.shape)}"
        )
    if not torch.isfinite(scores).all():
        raise ValueError("mask scores must be finite, got NaN or infinity")
    return scores.flatten(1)


def _standardise(scores: Tensor) -> Tensor:
    scores = scores.double()
    deviation = scores.std(1, keepdim=True, correction=0)
    return (scores - scores.mean(1, keepdim=True)) / deviation.clamp_min(1e-12)
