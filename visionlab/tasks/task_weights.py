"""How the losses of several tasks become one: fixed weights, or learnt by uncertainty."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from visionlab.registry import suggest

_CLAMP = 4.0  # weights stay within exp(-4)..exp(4)


class FixedWeights(nn.Module):
    """``w_t * L_t``.

    Args:
        tasks: their names.
        weights: task -> weight, 1 where not named.
    """

    def __init__(self, tasks: Sequence[str], weights: Mapping[str, float] | None = None) -> None:
        super().__init__()
        for task in weights or {}:
            if task not in tasks:
                raise ValueError(f"a weight for no task '{task}'. {suggest(task, tasks)}")
        for task, weight in (weights or {}).items():
            if not 0 <= weight < math.inf:
                raise ValueError(f"the weight of '{task}' is {weight}; expected 0 or more")
        self.weights = {task: float((weights or {}).get(task, 1.0)) for task in tasks}

    def forward(self, task: str, loss: Tensor, share: float = 1.0) -> Tensor:
        """The weighted loss; ``share`` is used by `UncertaintyWeights`."""
        return self.weights[task] * loss


class UncertaintyWeights(nn.Module):
    """``exp(-s_t) L_t + s_t / 2`` with learnt s_t (Kendall et al., arXiv 1705.07115, Eq. 10).

    s_t is clamped, so that no task is switched off or takes over. (Mod-Squad's form, 1 / s^2, is
    singular at s = 0.)

    Args:
        tasks: their names.
    """

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__()
        self.log_variance = nn.ParameterDict(
            {task: nn.Parameter(torch.zeros(())) for task in tasks}
        )

    def forward(self, task: str, loss: Tensor, share: float = 1.0) -> Tensor:
        """The weighted loss; the term s_t / 2 counts ``share`` times on this rank."""
        s = self.log_variance[task].clamp(-_CLAMP, _CLAMP)
        return torch.exp(-s) * loss + share * s / 2


def create_weights(
    tasks: Sequence[str], weights: Mapping[str, float] | str | None
) -> FixedWeights | UncertaintyWeights:
    """From a config: "uncertainty", task -> weight, or None for ones."""
    if isinstance(weights, str):
        if weights != "uncertainty":
            raise ValueError(f"no weighting '{weights}'. {suggest(weights, ['uncertainty'])}")
        return UncertaintyWeights(tasks)
    return FixedWeights(tasks, weights)
