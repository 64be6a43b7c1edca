"""Mutual information of tasks and experts that works with one task in the batch.

Mod-Squad (arXiv 2212.08066, Eq. 4-6) maximises I(T; E) = sum_te P(t, e) log P(t, e) / P(t)P(e).
When a batch holds one task, P(t) = 1 and I = 0 identically: no loss, no gradient. Here P(t) is
fixed and the rows Q_t(e) = P(e | t) of absent tasks come from a running table. With

    dI / dQ_t(e) = P(t) log(Q_t(e) / Q(e)),   Q(e) = sum_t P(t) Q_t(e)

the loss -sum_t P(t) sum_e q_t(e) stopgrad(log(Q_t(e) / Q(e))) over live tasks t has the gradient
of the joint batch. It is linear in the live rows, so it adds up over ranks and micro-batches.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from visionlab.moe.router import Routing
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
        if not self.experts or not self.tasks or min(self.experts) < 1:
            raise ValueError(
                f"the table needs layers with experts, and tasks; got experts {self.experts} and "
                f"tasks {self.tasks}"
            )
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
        return with_value(linear, mutual_information(r.rows, r.prior).mean())

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
    if set(prior) != set(tasks) or not all(0 < p < math.inf for p in prior.values()):
        raise ValueError(
            f"the prior must give each task a positive share: tasks {sorted(tasks)}, got {prior}"
        )
    p = torch.tensor([float(prior[t]) for t in tasks])
    return p / p.sum()


def with_value(linear: Tensor, value: Tensor) -> Tensor:
    """The value of one and the gradient of the other."""
    return linear + (value - linear).detach()
