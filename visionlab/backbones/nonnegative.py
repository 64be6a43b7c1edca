"""Nonnegative weights: what keeps a potential convex, through training and through loading.

An input-convex network is convex only while certain weights are nonnegative (Amos et al. 2017).
With ``constraint="project"`` they are clamped at zero after *every* step of *any* torch optimiser
that owns them: one hook, registered when this module is imported, finds them, so no training loop
can forget it. The other constraints hold by construction.
"""

import weakref
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.optimizer import register_optimizer_step_post_hook

Constraint = Literal["project", "softplus", "square"]
Init = Literal["uniform", "official"]

_PROJECTED: "weakref.WeakSet[NonNegativeWeight]" = weakref.WeakSet()


class NonNegativeWeight(nn.Module):
    """A weight tensor that stays nonnegative; calling the module returns it.

    Args:
        shape: shape of the weight; all dimensions but the first feed one output.
        constraint: ``"project"`` clamps after each optimiser step and keeps exact zeros,
            ``"softplus"`` and ``"square"`` reparametrise.
        init: ``"uniform"`` draws from U[0, 2 / fan_in], so that a layer keeps the scale of its
            input; ``"official"`` is exp(N(-10, 0.1)) of Fang et al. (2024), nearly zero.
    """

    def __init__(
        self, shape: Sequence[int], *, constraint: Constraint = "project", init: Init = "uniform"
    ) -> None:
        super().__init__()
        if constraint not in ("project", "softplus", "square"):
            raise ValueError(f"constraint is 'project', 'softplus' or 'square', got {constraint!r}")
        if init not in ("uniform", "official"):
            raise ValueError(f"init is 'uniform' or 'official', got {init!r}")
        self.constraint = constraint
        self.init = init
        self.weight = nn.Parameter(torch.empty(tuple(shape)))
        self.reset_parameters()
        self._watch()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the weight anew."""
        weight = torch.empty_like(self.weight)
        if self.init == "official":
            weight.normal_(-10.0, 0.1).exp_()
        else:
            fan_in = max(1, weight[0].numel())
            weight.uniform_(0.0, 2.0 / fan_in)
        if self.constraint == "softplus":
            weight = torch.log(torch.expm1(weight.clamp_min(1e-8)))
        elif self.constraint == "square":
            weight = weight.sqrt()
        self.weight.copy_(weight)

    def forward(self) -> Tensor:
        """The nonnegative weight."""
        if self.constraint == "softplus":
            return F.softplus(self.weight)
        if self.constraint == "square":
            return self.weight.square()
        return self.weight

    @torch.no_grad()
    def project_(self) -> None:
        """Set negative entries to zero (nothing to do for a reparametrised weight)."""
        if self.constraint == "project":
            self.weight.clamp_(min=0.0)

    def _watch(self) -> None:
        if self.constraint == "project":
            _PROJECTED.add(self)

    def __setstate__(self, state: dict[str, Any]) -> None:  # copies and unpickled modules
        super().__setstate__(state)
        self._watch()

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        weight = state_dict.get(prefix + "weight")
        if self.constraint == "project" and weight is not None and not bool((weight >= 0).all()):
            raise ValueError(
                f"'{prefix}weight' must be nonnegative for the potential to be convex, but the "
                f"checkpoint holds {int((~(weight >= 0)).sum())} entries that are not (smallest "
                f"{float(weight.min()):.3g}); clamp them at zero before loading if that is meant"
            )
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def _project_after_step(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
    stepped = {id(p) for group in optimizer.param_groups for p in group["params"]}
    for module in list(_PROJECTED):
        if id(module.weight) in stepped:
            module.project_()


register_optimizer_step_post_hook(_project_after_step)
