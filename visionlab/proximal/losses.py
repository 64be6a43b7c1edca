"""Proximal matching (Fang et al. 2024, Eq. 3.4) and its staged schedule.

As gamma falls to 0, the minimiser of E[1 - exp(-||f(y) - x||^2 / gamma^2)] tends to the mode of
the posterior, so f tends to the prox of -sigma^2 log p. Far from the target the gradient vanishes:
hence L1 or L2 first, then gamma falling in stages.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

LossName = Literal["l1", "l2", "proximal_matching"]


def proximal_matching_loss(prediction: Tensor, target: Tensor, gamma: float | Tensor) -> Tensor:
    """Mean over the batch of 1 - exp(-||prediction - target||^2 / (n gamma^2)).

    Args:
        prediction: (B, ...); the norm runs over the n entries of one sample.
        target: of the same shape.
        gamma: in units of sqrt(n), so that one value suits every image size; the official code's
            0.08 sqrt(n) is 0.08 here. A number or (B,).

    Raises:
        ValueError: shapes differ, or gamma is not positive.

    Example:
        >>> x = torch.zeros(2, 1, 8, 8)
        >>> round(proximal_matching_loss(x + 0.1, x, gamma=0.1).item(), 4)  # 1 - exp(-1)
        0.6321
    """
    if prediction.shape != target.shape:
        raise ValueError(
            f"prediction {tuple(prediction.shape)} and target {tuple(target.shape)} must have the "
            "same shape"
        )
    if not isinstance(gamma, Tensor) and not gamma > 0:
        raise ValueError(f"gamma must be positive, got {gamma}")
    mean_square = (prediction - target).square().flatten(1).mean(1)
    return -torch.expm1(-mean_square / gamma**2).mean()


def denoising_loss(
    prediction: Tensor,
    target: Tensor,
    loss: LossName,
    *,
    gamma: float | None = None,
    sigma: Tensor | None = None,
) -> Tensor:
    """One of the three losses, with all lengths measured in units of the noise if it is given.

    Args:
        prediction: (B, ...).
        target: likewise.
        loss: name.
        gamma: of proximal matching; in sqrt(n) units, times ``sigma`` where given.
        sigma: (B,) noise level of each sample; without this unit, a range of levels would be
            trained at its upper end only.
    """
    if loss == "proximal_matching":
        if gamma is None:
            raise ValueError("proximal matching needs gamma")
        return proximal_matching_loss(
            prediction, target, gamma if sigma is None else gamma * sigma.to(prediction)
        )
    residual = (prediction - target).flatten(1)
    if loss == "l1":
        per_sample, power = residual.abs().mean(1), 1
    elif loss == "l2":
        per_sample, power = residual.square().mean(1), 2
    else:
        raise ValueError(f"loss is 'l1', 'l2' or 'proximal_matching', got {loss!r}")
    return (per_sample if sigma is None else per_sample / sigma**power).mean()


@dataclass(frozen=True)
class Stage:
    """What holds at one moment of training: loss, gamma, factor of the learning rate."""

    loss: LossName
    gamma: float | None
    lr_factor: float


class ProximalMatchingSchedule:
    """Pre-training, then proximal matching with gamma falling stage by stage.

    The learning rate warms up, falls from 1 to ``pretrain_floor`` along a half cosine, and is one
    factor per proximal matching stage.

    Args:
        pretrain: loss to begin with.
        pretrain_share: share of the run; 1 trains with that loss alone.
        pretrain_floor: factor of the learning rate at the end of pre-training.
        gammas: one per stage, falling; the stages share the rest of the run equally.
        lr_factors: factor of the learning rate in each stage, or one for all.
        warmup: share of the run.
    """

    def __init__(
        self,
        *,
        pretrain: Literal["l1", "l2"] = "l1",
        pretrain_share: float = 0.5,
        pretrain_floor: float = 0.1,
        gammas: Sequence[float] = (0.64, 0.32, 0.16, 0.08),
        lr_factors: float | Sequence[float] = 0.1,
        warmup: float = 0.02,
    ) -> None:
        if pretrain not in ("l1", "l2"):
            raise ValueError(f"pretrain is 'l1' or 'l2', got {pretrain!r}")
        if not 0 <= pretrain_share <= 1 or not 0 <= warmup < 1:
            raise ValueError(
                "pretrain_share must lie in [0, 1] and warmup in [0, 1), got "
                f"{pretrain_share} and {warmup}"
            )
        if pretrain_share < 1 and (not gammas or min(gammas) <= 0):
            raise ValueError(f"gammas must be positive, one per stage, got {list(gammas)}")
        factors = [lr_factors] * len(gammas) if isinstance(lr_factors, float | int) else lr_factors
        if len(factors) != len(gammas):
            raise ValueError(
                f"lr_factors needs one number or one per gamma: {len(gammas)}, got {len(factors)}"
            )
        self.pretrain, self.pretrain_share = pretrain, pretrain_share
        self.pretrain_floor, self.warmup = pretrain_floor, warmup
        self.gammas, self.lr_factors = tuple(gammas), tuple(factors)

    def at(self, progress: float) -> Stage:
        """The stage at a share ``progress`` in [0, 1] of the run."""
        rise = min(1.0, (progress + 1e-3) / self.warmup) if self.warmup else 1.0
        if progress < self.pretrain_share or self.pretrain_share == 1:
            fall = 0.5 * (1 + math.cos(math.pi * min(progress / self.pretrain_share, 1.0)))
            return Stage(
                self.pretrain, None, rise * (self.pretrain_floor + (1 - self.pretrain_floor) * fall)
            )
        rest = (progress - self.pretrain_share) / (1 - self.pretrain_share)
        k = min(int(rest * len(self.gammas)), len(self.gammas) - 1)
        return Stage("proximal_matching", self.gammas[k], rise * self.lr_factors[k])
