"""The loop that all solvers share: traces, stopping, divergence; each sample on its own."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from visionlab.proximal.guarantees import Guarantee
from visionlab.proximal.physics.krylov import per_sample

Callback = Callable[[int, Tensor], None]

# a run has diverged when its fixed-point residual, or the size of its image, grows to this many
# times its early value
GROWTH_LIMIT = 10.0
EARLY = 3


@dataclass
class Iterate:
    """What one step of a solver leaves.

    Attributes:
        image: the answer so far.
        objective: ``h + weight R``, (B,).
        merit: what the solver's theorem says falls, (B,).
        residual: ``||x+ - x|| / ||x||`` of the fixed-point map, over the share of a full step
            that the map takes, (B,).
        memory: all that the next step needs, each (B, ...).
    """

    image: Tensor
    objective: Tensor
    merit: Tensor
    residual: Tensor
    memory: tuple[Tensor, ...]


class Step(Protocol):
    """One iteration of a solver."""

    def __call__(self, memory: tuple[Tensor, ...]) -> Iterate:
        """Map the memory of one iterate to the next iterate."""
        ...


@dataclass(frozen=True)
class Restoration:
    """The outcome of a solver on a batch.

    Attributes:
        x: the images, (B, C, H, W); for a sample that diverged, its last good iterate.
        objective: ``h + weight R`` after each iteration, (K, B).
        merit: the quantity that falls when `guaranteed`, (K, B); see ``guarantee.quantity``.
        residuals: relative change of the fixed-point iteration, (K, B).
        iterations: how many each sample used, (B,); its traces stay constant afterwards.
        converged: residual at or below the tolerance, (B,).
        diverged: stopped because it grew, (B,).
        reason: one sentence on how the run ended.
        guarantee: whether a theorem covers the run, and why (not).
        weight: of the prior in the objective.
    """

    x: Tensor
    objective: Tensor
    merit: Tensor
    residuals: Tensor
    iterations: Tensor
    converged: Tensor
    diverged: Tensor
    reason: str
    guarantee: Guarantee
    weight: float

    @property
    def guaranteed(self) -> bool:
        """Whether the step and the weight satisfy the theorem's conditions."""
        return self.guarantee.holds


class _Watch:
    """Per sample: still running? If it grew, which was its last good image?"""

    def __init__(self, start: Tensor, *, tolerance: float) -> None:
        batch = len(start)
        self.tolerance = tolerance
        self.running = torch.ones(batch, dtype=torch.bool, device=start.device)
        self.converged = torch.zeros_like(self.running)
        self.diverged = torch.zeros_like(self.running)
        self.iterations = torch.zeros(batch, dtype=torch.int64, device=start.device)
        self.good, self.least = start, start.new_full((batch,), torch.inf)
        self.early_residual = start.new_zeros(batch)
        self.early_norm = start.flatten(1).norm(dim=1)

    def judge(self, k: int, now: Iterate) -> None:
        norm = now.image.flatten(1).norm(dim=1)
        finite = torch.isfinite(norm) & torch.isfinite(now.residual)
        if k < EARLY:
            self.early_residual = torch.where(
                finite, self.early_residual.maximum(now.residual), self.early_residual
            )
            self.early_norm = torch.where(finite, self.early_norm.maximum(norm), self.early_norm)
        grown = (now.residual > GROWTH_LIMIT * self.early_residual) | (
            norm > GROWTH_LIMIT * self.early_norm
        )
        failed = self.running & (~finite | grown)
        better = self.running & ~failed & (now.residual <= self.least)
        self.least = torch.where(better, now.residual, self.least)
        self.good = torch.where(per_sample(better, now.image), now.image, self.good)
        self.iterations += self.running
        self.diverged |= failed
        self.converged |= self.running & ~failed & (now.residual <= self.tolerance)
        self.running = self.running & ~self.diverged & ~self.converged


def iterate(
    step: Step,
    memory: tuple[Tensor, ...],
    start: Tensor,
    *,
    iterations: int,
    tolerance: float,
    guarantee: Guarantee,
    weight: float,
    callback: Callback | None,
) -> Restoration:
    """Run ``step`` until each sample has converged, diverged or used its iterations.

    A sample that is done stands still, so its answer does not depend on its neighbours.
    """
    if iterations < 1:
        raise ValueError(f"iterations is at least 1, got {iterations}")
    watch = _Watch(start, tolerance=tolerance)
    traces: list[tuple[Tensor, Tensor, Tensor]] = []
    last: Iterate | None = None
    for k in range(iterations):
        was_running = watch.running
        now = step(memory)
        if last is not None:
            now = _hold(was_running, now, last)
        watch.judge(k, now)
        traces.append((now.objective, now.merit, now.residual))
        memory, last = now.memory, now
        if callback is not None:
            callback(k, now.image)
        if not bool(watch.running.any()):
            break
    assert last is not None
    objective, merit, residuals = (torch.stack(t) for t in zip(*traces))
    return Restoration(
        x=torch.where(per_sample(watch.diverged, last.image), watch.good, last.image),
        objective=objective,
        merit=merit,
        residuals=residuals,
        iterations=watch.iterations,
        converged=watch.converged,
        diverged=watch.diverged,
        reason=_reason(watch, len(traces)),
        guarantee=guarantee,
        weight=weight,
    )


def _hold(running: Tensor, now: Iterate, last: Iterate) -> Iterate:
    """``now`` where a sample still runs, ``last`` elsewhere."""

    def choose(new: Tensor, old: Tensor) -> Tensor:
        return torch.where(per_sample(running, new), new, old)

    return Iterate(
        image=choose(now.image, last.image),
        objective=choose(now.objective, last.objective),
        merit=choose(now.merit, last.merit),
        residual=choose(now.residual, last.residual),
        memory=tuple(choose(a, b) for a, b in zip(now.memory, last.memory, strict=True)),
    )


def _reason(watch: _Watch, used: int) -> str:
    total = len(watch.running)
    converged, diverged = int(watch.converged.sum()), int(watch.diverged.sum())
    if diverged:
        first = int(watch.iterations[watch.diverged].min())
        return (
            f"{diverged} of {total} samples diverged (first at iteration {first}: the fixed-point "
            f"residual or the image grew {GROWTH_LIMIT:g} times, or left the finite numbers); "
            "their last good iterate is returned. Use a larger weight (rho), a smaller step (eta), "
            "or guarantee=True"
        )
    if converged == total:
        return f"all {total} samples converged within {used} iterations"
    return f"{total - converged} of {total} samples used all {used} iterations without converging"
