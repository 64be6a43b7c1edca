"""Which task uses which experts, measured over a loader."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from visionlab.moe.information import mutual_information
from visionlab.moe.router import Routing
from visionlab.moe.structure import moe_layers, resolve_task
from visionlab.moe.vit import MoEVisionTransformer

Prepare = Callable[[Any], Tensor]


@dataclass(frozen=True)
class Usage:
    """Counts and mean probabilities of the experts of every MoE layer.

    Attributes:
        tasks: the rows, T.
        layers: names of the layers, L.
        top_k: (L, T) experts per token.
        counts: per layer (T, E) int64, how often an expert was selected.
        soft: per layer (T, E) float64, mean p(e | x, t); rows sum to one.
    """

    tasks: list[str]
    layers: list[str]
    top_k: list[list[int]]
    counts: list[Tensor]
    soft: list[Tensor]

    @property
    def hard(self) -> list[Tensor]:
        """Per layer (T, E) float64 share of the selections; rows sum to one."""
        return [c.double() / c.sum(1, keepdim=True).clamp(min=1) for c in self.counts]

    def kept(self, task: str | Sequence[str], *, keep: float | int) -> list[list[int]]:
        """The experts that tasks need, per layer, sorted.

        Args:
            task: one or several; the result is the union.
            keep: int = this many most used experts per task; float = the fewest most used ones
                that together hold this share of the task's selections (1.0 = all that were ever
                used), but never fewer than k.

        Raises:
            ValueError: unknown task, a share outside (0, 1], a count below k.
        """
        rows = [task] if isinstance(task, str) else list(task)
        index = [self.tasks.index(resolve_task(t, self.tasks)) for t in rows]
        out = []
        for layer, counts in enumerate(self.counts):
            chosen: set[int] = set()
            for t in index:
                n = _number(counts[t], keep, self.top_k[layer][t], self.layers[layer])
                # stable: ties go to the lower id
                order = counts[t].sort(descending=True, stable=True).indices
                chosen.update(order[:n].tolist())
            out.append(sorted(chosen))
        return out

    def information(self, kind: str = "soft") -> dict[str, Tensor]:
        """Mutual information of tasks and experts per layer, uniform P(t).

        Args:
            kind: "soft" (probabilities) or "hard" (selections).

        Returns:
            "nats" (L,) and "normalised" (L,), over min(log T, log E) for soft and
            min(log T, log(E / k)) for hard: k different experts per token bound it so.
        """
        if kind not in ("soft", "hard"):
            raise ValueError(f"kind must be 'soft' or 'hard', got {kind!r}")
        tables = self.soft if kind == "soft" else self.hard
        prior = torch.full((len(self.tasks),), 1 / len(self.tasks), dtype=torch.float64)
        nats = torch.stack([mutual_information(t, prior) for t in tables])
        ceilings = []
        for table, k in zip(tables, self.top_k, strict=True):
            experts = table.shape[1] / (1 if kind == "soft" else max(k))
            ceilings.append(max(min(math.log(len(self.tasks)), math.log(experts)), 1e-12))
        return {"nats": nats, "normalised": nats / torch.tensor(ceilings, dtype=torch.float64)}

    def as_dict(self) -> dict[str, Any]:
        """Plain lists, for a JSON file."""
        return {
            "tasks": self.tasks,
            "layers": self.layers,
            "top_k": self.top_k,
            "counts": [c.tolist() for c in self.counts],
            "soft": [s.tolist() for s in self.soft],
        }


def _number(counts: Tensor, keep: float | int, top_k: int, layer: str) -> int:
    """How many experts of one task and layer stay."""
    if isinstance(keep, int) and not isinstance(keep, bool):
        if not top_k <= keep <= len(counts):
            raise ValueError(
                f"keep={keep} experts in layer '{layer}', which has {len(counts)} and uses "
                f"top_k={top_k} per token; keep {top_k} to {len(counts)}, or lower k first with "
                "set_top_k"
            )
        return keep
    if not isinstance(keep, float) or not 0 < keep <= 1:
        raise ValueError(f"keep must be a count (int) or a share in (0, 1] (float), got {keep!r}")
    ranked = counts.sort(descending=True).values.cumsum(0)
    needed = math.ceil(keep * int(ranked[-1]) - 1e-9)
    return max(int((ranked < needed).sum()) + 1, top_k)


@torch.no_grad()
def usage(
    model: nn.Module,
    loader: Iterable[Any] | Mapping[str, Iterable[Any]],
    *,
    task: str | None = None,
    prepare: Prepare | None = None,
) -> Usage:
    """Count the experts that each task selects. The model's state and mode are left as found.

    Args:
        model: a MoE ViT, or a module that contains one.
        loader: a mapping task -> batches, or batches on which every task is measured (then it
            must be possible to iterate them anew). A batch is a tensor of images (B, C, H, W) in
            the model's value range, or a dict with them under "image".
        task: measure only this one on a loader that is no mapping.
        prepare: batch -> images, where batches hold something else (uint8, another key).

    Raises:
        ValueError: no MoE ViT in the model, unknown task, empty loader.
        TypeError: a batch that needs ``prepare``.
    """
    vit = find_moe_vit(model)
    if isinstance(loader, Tensor) or not isinstance(loader, Iterable) or loader == {}:
        raise TypeError(
            "usage needs batches, as a list or a loader, or a mapping of tasks to such; got "
            f"{'an empty mapping' if loader == {} else type(loader).__name__}, for one batch of "
            "images pass [images]"
        )
    if isinstance(loader, Mapping):
        loaders = loader
    else:
        loaders = dict.fromkeys(vit.tasks if task is None else [task], loader)
    layers = moe_layers(vit)
    tables = [torch.zeros(2, len(loaders), x.num_experts, dtype=torch.float64) for _, x in layers]
    modes = {m: m.training for m in model.modules()}
    model.eval()
    try:
        for row, (name, batches) in enumerate(loaders.items()):
            _measure(vit, resolve_task(name, vit.tasks), batches, prepare, row, tables)
    finally:
        for module, mode in modes.items():
            module.training = mode
    return Usage(
        tasks=list(loaders),
        layers=[n for n, _ in vit.moe_layers()],
        top_k=[[x.top_k[t] for t in loaders] for _, x in layers],
        counts=[t[0].round().long() for t in tables],
        soft=[t[1] / t[1].sum(1, keepdim=True) for t in tables],
    )


def _measure(
    vit: MoEVisionTransformer,
    task: str,
    batches: Iterable[Any],
    prepare: Prepare | None,
    row: int,
    tables: list[Tensor],
) -> None:
    device, seen = next(vit.parameters()).device, False
    for batch in batches:
        routing: list[Routing] = []
        vit.forward_features(_images(batch, prepare).to(device), task, routing=routing)
        seen = True
        for table, r in zip(tables, routing, strict=True):
            table[0, row] += r.counts().double().cpu()
            table[1, row] += r.probability_sum().double().cpu()
    if not seen:
        raise ValueError(
            f"the loader of task '{task}' gave no batch, so there is no usage to count"
        )


def _images(batch: Any, prepare: Prepare | None) -> Tensor:
    if prepare is not None:
        return prepare(batch)
    images = batch.get("image") if isinstance(batch, Mapping) else batch
    if not isinstance(images, Tensor) or not images.is_floating_point():
        raise TypeError(
            "usage needs float images (B, C, H, W) as the model takes them, or a dict with them "
            f"under 'image'; got {type(batch).__name__}. Pass prepare=, a function from a batch "
            "to such images"
        )
    return images


def find_moe_vit(model: nn.Module) -> MoEVisionTransformer:
    """The MoE ViT that a model is or contains.

    Raises:
        ValueError: there is none.
    """
    for module in model.modules():
        if isinstance(module, MoEVisionTransformer):
            return module
    raise ValueError(
        f"{type(model).__name__} contains no MoE ViT; make one with visionlab.moe.insert_moe"
    )
