"""Losses on routing: mutual information of tasks and experts, balance, z, concentration.

Mod-Squad (arXiv 2212.08066, Eq. 4-6) maximises I(T; E) = sum_te P(t, e) log P(t, e) / P(t)P(e).
When a batch holds one task, P(t) = 1 and I = 0 identically: no loss, no gradient. Here P(t) is
fixed and the rows Q_t(e) = P(e | t) of absent tasks come from a running table. With

    dI / dQ_t(e) = P(t) log(Q_t(e) / Q(e)),   Q(e) = sum_t P(t) Q_t(e)

the loss -sum_t P(t) sum_e q_t(e) stopgrad(log(Q_t(e) / Q(e))) over live tasks t has the gradient
of the joint batch. It is linear in the live rows, so it adds up over ranks and micro-batches.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

import torch
import torch.distributed as dist
from torch import Tensor, nn

from visionlab.moe.router import Routing
from visionlab.moe.structure import moe_layers
from visionlab.registry import suggest

_TINY = 1e-20


def mutual_information(rows: Tensor, prior: Tensor) -> Tensor:
    """I(T; E) in nats.

    Args:
        rows: (..., T, E) with p(e | t); a row of zeros counts as absent if its prior is 0.
        prior: (T,) P(t), sums to one.

    Returns:
        (...), between 0 and min(log T, log E).
    """
    joint = prior[:, None] * rows
    return (joint * _log_ratio(rows, prior)).sum((-2, -1))


def _log_ratio(rows: Tensor, prior: Tensor) -> Tensor:
    """log(Q_t(e) / Q(e)), (..., T, E)."""
    mixture = (prior[:, None] * rows).sum(-2, keepdim=True)
    return rows.clamp(min=_TINY).log() - mixture.clamp(min=_TINY).log()


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


class Rows(NamedTuple):
    """p(e | t) of one optimizer step.

    Attributes:
        live: (L, T, E) this process's share of the rows of the tasks in the batch,
            differentiable, scaled such that the mean over ranks is the global row.
        rows: (L, T, E) all rows, detached: global live rows, else the table's.
        prior: (T,) P(t) over the tasks that have been seen.
    """

    live: Tensor
    rows: Tensor
    prior: Tensor


class MutualInformation(nn.Module):
    """Running table of p(e | t) for every MoE layer, and I(T; E) computed with it.

    Args:
        experts: E of each layer.
        tasks: names, the rows of the table.
        decay: of the bias-corrected moving average, per optimizer step in which a task is live.
        prior: P(t) up to a factor; None = uniform. Token counts would let the task with the
            largest images rule.

    The table lives in the state_dict. `forward` in training mode gathers, `step` moves the table.
    """

    mean: Tensor
    mass: Tensor
    prior: Tensor
    sizes: Tensor
    pending: Tensor
    pending_tokens: Tensor

    def __init__(
        self,
        experts: Sequence[int],
        tasks: Sequence[str],
        *,
        decay: float = 0.99,
        prior: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be in [0, 1), got {decay}")
        self.experts, self.tasks, self.decay = list(experts), list(tasks), decay
        shape = (len(self.experts), len(self.tasks), max(self.experts))
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("mass", torch.zeros(len(self.tasks)))
        self.register_buffer("prior", _prior(self.tasks, prior), persistent=False)
        sizes = torch.tensor(self.experts, dtype=torch.float32)
        self.register_buffer("sizes", sizes, persistent=False)
        self.register_buffer("pending", torch.zeros(shape), persistent=False)
        self.register_buffer("pending_tokens", torch.zeros(len(self.tasks)), persistent=False)

    def forward(self, *forwards: Sequence[Routing]) -> Tensor:
        """-I averaged over the layers, () with the gradient of the joint batch.

        Args:
            *forwards: the routing list of each forward pass that is alive now, one `Routing` per
                layer. Passing the forwards of several tasks together gives the exact joint form;
                otherwise the other tasks' rows come from the table.
        """
        return -self.objective(self.gather(*forwards))

    def objective(self, r: Rows) -> Tensor:
        """I averaged over the layers, with the linear form's gradient."""
        linear = (r.prior[:, None] * r.live * _log_ratio(r.rows, r.prior)).sum((-2, -1)).mean()
        return _with_value(linear, mutual_information(r.rows, r.prior).mean())

    def gather(self, *forwards: Sequence[Routing]) -> Rows:
        """Rows of this step over all ranks; in training they are noted for `step`.

        With several ranks this communicates: call it on all of them equally often.

        Raises:
            ValueError: a forward with another number of layers, or of an unknown task.
        """
        sums, tokens = self._local(forwards)
        total, n = sums.detach().clone(), tokens.clone()
        ranks = 1
        if self.training and dist.is_available() and dist.is_initialized():
            ranks = dist.get_world_size()
            dist.all_reduce(total)
            dist.all_reduce(n)
        if self.training:
            self.pending += total
            self.pending_tokens += n
        live, seen = (n > 0)[:, None], (n > 0) | (self.mass > 0)
        share = n.clamp(min=1)[:, None]
        rows = torch.where(live, total / share, self.table())
        prior = self.prior * seen
        return Rows(sums * ranks / share, rows, prior / prior.sum().clamp(min=_TINY))

    def table(self) -> Tensor:
        """Running p(e | t), (L, T, E); zeros for tasks never seen."""
        return self.mean / self.mass.clamp(min=_TINY)[:, None]

    @torch.no_grad()
    def step(self) -> None:
        """Move the table; once per optimizer step, on every rank."""
        live = self.pending_tokens > 0
        row = self.pending / self.pending_tokens.clamp(min=1)[:, None]
        b = self.decay
        self.mean.copy_(torch.where(live[:, None], b * self.mean + (1 - b) * row, self.mean))
        self.mass.copy_(torch.where(live, b * self.mass + (1 - b), self.mass))
        self.pending.zero_()
        self.pending_tokens.zero_()

    def information(self) -> dict[str, Tensor]:
        """Soft mutual information of the table per layer.

        Returns:
            "soft": (L,) nats; "normalised": (L,) over the ceiling min(H(P), log E).
        """
        prior = self.prior * (self.mass > 0)
        prior = prior / prior.sum().clamp(min=_TINY)
        soft = mutual_information(self.table(), prior)
        entropy = -torch.special.xlogy(prior, prior).sum()
        ceiling = torch.minimum(entropy, self.sizes.log())
        return {"soft": soft, "normalised": soft / ceiling.clamp(min=_TINY)}

    def _local(self, forwards: Sequence[Sequence[Routing]]) -> tuple[Tensor, Tensor]:
        """Sums of p(e | x, t) (L, T, E), differentiable, and token counts (T,)."""
        sums, tokens = torch.zeros_like(self.mean), torch.zeros_like(self.mass)
        for routings in forwards:
            if len(routings) != len(self.experts):
                raise ValueError(
                    f"the routing of one forward has {len(self.experts)} layers here, got "
                    f"{len(routings)}; pass a fresh list to each forward"
                )
            task = routings[0].task
            if task not in self.tasks:
                raise ValueError(
                    f"no task '{task}' in the routing loss. {suggest(task, self.tasks)} "
                    "After add_task build it again: RoutingLoss.for_model(..., previous=old)"
                )
            t, width = self.tasks.index(task), self.mean.shape[-1]
            rows = [
                nn.functional.pad(r.probability_sum().to(sums.dtype), (0, width - r.num_experts))
                for r in routings
            ]
            place = torch.zeros_like(tokens)
            place[t] = 1  # filled on the device: nothing is copied or read back
            sums = sums + torch.stack(rows)[:, None] * place[:, None]
            tokens = tokens + routings[0].tokens().detach() * place
        return sums, tokens


def _prior(tasks: Sequence[str], prior: Mapping[str, float] | None) -> Tensor:
    if prior is None:
        return torch.full((len(tasks),), 1 / len(tasks))
    if set(prior) != set(tasks) or min(prior.values()) <= 0:
        raise ValueError(
            f"the prior must give each task a positive share: tasks {sorted(tasks)}, got {prior}"
        )
    p = torch.tensor([float(prior[t]) for t in tasks])
    return p / p.sum()


def _with_value(linear: Tensor, value: Tensor) -> Tensor:
    """The value of one and the gradient of the other."""
    return linear + (value - linear).detach()


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
        return _with_value(linear, (experts * mixture.square().sum(-1) - 1).mean())

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
