"""Losses on routing: information between tasks and experts, balance, z, concentration."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from visionlab.moe.information import MutualInformation, Rows, with_value
from visionlab.moe.router import Routing
from visionlab.moe.structure import moe_layers

ROUTING_LOSSES = ("information", "balance", "z", "concentration", "concentration_experts")


def balance_loss(routing: Routing) -> Tensor:
    """Switch Transformer balance (arXiv 2101.03961, Eq. 4) over the tokens of one task.

    E * sum_e f(e) q(e), 1 when balanced. Applied to one task alone it works against the mutual
    information; `RoutingLoss` balances the mixture over tasks instead.
    """
    chosen = routing.counts() / (routing.tokens() * routing.experts.shape[1]).clamp(min=1)
    return routing.num_experts * (chosen * routing.mean_probability()).sum()


def z_loss(routing: Routing) -> Tensor:
    """Mean squared log-partition of the router (ST-MoE, arXiv 2202.08906, Eq. 5)."""
    squared = routing.selectable_logits().logsumexp(-1).square()
    if routing.token_mask is not None:
        squared = squared * routing.token_mask
    return squared.sum() / routing.tokens().clamp(min=1)


def concentration_loss(routing: Routing, experts: int) -> Tensor:
    """Share of a task's probability outside its ``experts`` most probable ones, in [0, 1).

    Draws a task into few experts, so that the others can be pruned away.
    """
    return 1 - routing.mean_probability().topk(min(experts, routing.num_experts)).values.sum()


class RoutingLoss(nn.Module):
    """All losses on routing, weighted; a term of weight 0 is not computed.

    Args:
        table: running p(e | t).
        information: weight of -I(T; E), averaged over layers.
        balance: weight of E * sum_e Q(e)^2 - 1, Q the mixture over tasks (0 when balanced).
        z: weight of `z_loss`.
        concentration: weight of `concentration_loss`.
        concentration_experts: experts that one task should get by with.
    """

    def __init__(
        self,
        table: MutualInformation,
        *,
        information: float = 0.005,
        balance: float = 0.0,
        z: float = 0.0,
        concentration: float = 0.0,
        concentration_experts: int = 4,
    ) -> None:
        super().__init__()
        self.table = table
        self.weights = {
            "information": information,
            "balance": balance,
            "z": z,
            "concentration": concentration,
        }
        wrong = [f"{name}={value}" for name, value in self.weights.items() if not value >= 0]
        if wrong or concentration_experts < 1:
            wrong = wrong or [f"concentration_experts={concentration_experts}"]
            raise ValueError(
                f"weights of routing losses are 0 or positive, experts at least 1; got {wrong[0]}"
            )
        self.concentration_experts = concentration_experts

    @classmethod
    def for_model(
        cls,
        model: nn.Module,
        *,
        decay: float = 0.99,
        prior: Mapping[str, float] | None = None,
        previous: Self | None = None,
        **weights: Any,
    ) -> Self:
        """The losses for all MoE layers of a model.

        Args:
            model: holds MoE layers.
            decay: see `MutualInformation`.
            prior: see `MutualInformation`.
            previous: losses of the model before surgery; rows of tasks whose layers have at
                least as many experts as before are taken over, the others start anew.
            **weights: the keyword arguments of `RoutingLoss`.
        """
        layers = [layer for _, layer in moe_layers(model)]
        tasks = layers[0].tasks
        table = MutualInformation([x.num_experts for x in layers], tasks, decay=decay, prior=prior)
        if previous is not None:
            _take_over(table, previous.table)
        return cls(table, **weights).to(next(model.parameters()).device)

    def forward(self, *forwards: Sequence[Routing]) -> dict[str, Tensor]:
        """Weighted terms by name; their sum is to be added to the tasks' losses.

        Args:
            *forwards: see `MutualInformation.forward`.
        """
        w, routings = self.weights, [r for f in forwards for r in f]
        rows = self.table.gather(*forwards)  # also without a weight: the table is a measurement
        terms = {}
        if w["information"]:
            terms["information"] = -w["information"] * self.table.objective(rows)
        if w["balance"]:
            terms["balance"] = w["balance"] * self._mixture_balance(rows)
        if w["z"]:
            terms["z"] = w["z"] * torch.stack([z_loss(r) for r in routings]).mean()
        if w["concentration"]:
            n = self.concentration_experts
            each = torch.stack([concentration_loss(r, n) for r in routings])
            terms["concentration"] = w["concentration"] * each.mean()
        return terms

    def _mixture_balance(self, r: Rows) -> Tensor:
        """E * sum_e Q(e)^2 - 1 with d/dQ_t(e) = 2 E P(t) Q(e), linear in the live rows."""
        mixture = (r.prior[:, None] * r.rows).sum(-2)
        experts = self.table.sizes
        slope = 2 * experts[:, None, None] * mixture[:, None, :]
        linear = (r.prior[:, None] * r.live * slope).sum((-2, -1)).mean()
        return with_value(linear, (experts * mixture.square().sum(-1) - 1).mean())

    def step(self) -> None:
        """After the optimizer step, once, on every rank: move the table."""
        self.table.step()

    def information(self) -> dict[str, Tensor]:
        """See `MutualInformation.information`."""
        return self.table.information()


@torch.no_grad()
def _take_over(new: MutualInformation, old: MutualInformation) -> None:
    if len(new.experts) != len(old.experts):
        return
    if any(n < o for n, o in zip(new.experts, old.experts, strict=True)):
        return  # pruned: expert ids moved, the old rows mean nothing
    width = old.mean.shape[-1]
    for task in set(new.tasks) & set(old.tasks):
        n, o = new.tasks.index(task), old.tasks.index(task)
        new.mean[:, n, :width] = old.mean[:, o].to(new.mean)
        new.mass[n] = old.mass[o]
