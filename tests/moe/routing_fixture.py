"""Routings made from given logits, for tests of the losses."""

import torch

from visionlab.moe import Routing

TASKS = ["cls", "det", "seg"]
E = 16


def routing_of(logits: torch.Tensor, task: str, mask: torch.Tensor | None = None) -> Routing:
    chosen = logits.topk(4).indices
    gates = torch.full(chosen.shape, 0.25)
    return Routing(task, logits, chosen, gates, E, torch.arange(E), mask)


def task_logits(tokens: int = 16) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    shift = {t: torch.randn(E, generator=g, dtype=torch.float64) for t in TASKS}
    noise = {t: torch.randn(tokens, E, generator=g, dtype=torch.float64) for t in TASKS}
    return {t: (shift[t] + 0.5 * noise[t]).requires_grad_() for t in TASKS}
