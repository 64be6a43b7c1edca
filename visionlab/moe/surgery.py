"""Take a multi-task model apart and extend it: prune, add tasks and experts, freeze.

Mod-Squad (arXiv 2212.08066, Sec. 3.4) cuts a task's experts out as a model of its own; the
heterogeneous follow-up (arXiv 2306.17165) adapts to new tasks with fewer trained parameters, and
learns on without forgetting by expansion. All calls work on a MoE ViT, on a module that contains
one (a ``heads`` ModuleDict is kept in step), and on a bare MoE layer. They compose, and
`MoEVisionTransformer.layout` describes the result to a checkpoint.
"""

import copy
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple, TypeVar

from torch import nn

from visionlab.moe.expert_usage import Usage
from visionlab.moe.structure import moe_layers, resolve_task

M = TypeVar("M", bound=nn.Module)


def prune_to_task(
    model: M,
    task: str | Sequence[str],
    *,
    keep: float | int | Usage | Sequence[Sequence[int]],
    usage: Usage | None = None,
    compact_router: bool = False,
) -> M:
    """A copy of the model with only what some tasks need.

    Routers and heads of other tasks go, and so do experts outside ``keep``. Experts that were
    never used leave the outputs on the measured data bit-equal; other data may have been routed
    to them.

    Args:
        model: stays as it is.
        task: one task, or several whose experts are combined.
        keep: int = most used experts per layer and task, float = share of the selections that
            they must hold (1.0 = all ever used; see `Usage.kept`), a `Usage` = all it saw in use,
            or expert ids per layer.
        usage: `visionlab.moe.usage` of the model; needed if ``keep`` is a number.
        compact_router: see `ExpertLayer.keep_experts`.

    Raises:
        ValueError: unknown task, fewer experts than k, no usage.
    """
    tasks = [task] if isinstance(task, str) else list(task)
    if not tasks:
        raise ValueError("prune_to_task needs at least one task to keep, got none")
    layers = moe_layers(model)
    for t in tasks:
        resolve_task(t, layers[0][1].tasks)
    if isinstance(keep, Usage):
        usage = keep
        keep = 1.0
    if isinstance(keep, (int, float)):
        if usage is None:
            raise ValueError(
                f"keep={keep} needs the experts' usage: pass usage=visionlab.moe.usage(model, "
                "loader), or list the expert ids per layer"
            )
        measured = [c.shape[1] for c in usage.counts]
        if measured != [layer.num_experts for _, layer in layers]:
            raise ValueError(
                f"the usage was measured on layers of {measured} experts, the model's have "
                f"{[layer.num_experts for _, layer in layers]}; measure it on this model"
            )
        chosen = usage.kept(tasks, keep=keep)
    else:
        chosen = _lists(keep, len(layers))
    pruned = copy.deepcopy(model)
    for (_, layer), ids in zip(moe_layers(pruned), chosen, strict=True):
        for other in set(layer.tasks) - set(tasks):
            del layer.routers[other]
        layer.keep_experts(ids, compact_router=compact_router)
    heads = _heads(pruned)
    if heads is not None:
        for other in set(heads) - set(tasks):
            del heads[other]
    return pruned


def add_task(
    model: M,
    task: str,
    *,
    head: nn.Module | None = None,
    source: str | Sequence[str] | None = None,
    experts: Sequence[Sequence[int]] | None = None,
    top_k: int | None = None,
) -> M:
    """Give the model a further task, in place; the other tasks stay bit-equal.

    Args:
        model: a MoE ViT, a module with one, or a layer.
        task: new name.
        head: goes to ``model.heads[task]``; needed if the model has heads.
        source: task whose routers are copied, or several whose experts are combined: the new
            router may choose among their experts and starts from the mean of their routers.
            None = fresh routers.
        experts: ids per layer that the task may use (for example ``usage.kept([...], keep=4)``);
            None = all, or those of ``source``.
        top_k: experts per token; None = as the source, or as the first task.

    Returns:
        ``model``.

    Raises:
        ValueError: the task exists, an unknown source, or a head is missing.
    """
    heads, layers = _heads(model), moe_layers(model)
    if heads is not None and task in heads:
        raise ValueError(f"task '{task}' exists already (heads: {', '.join(heads)})")
    if (heads is None) != (head is None):
        what = "has heads, pass head=" if head is None else "has no heads, pass no head"
        raise ValueError(f"cannot add task '{task}': the model {what}")
    lists = None if experts is None else _lists(experts, len(layers))
    done = []
    try:
        for i, (_, layer) in enumerate(layers):
            allowed = None if lists is None else lists[i]
            layer.add_task(task, source=source, experts=allowed, top_k=top_k)
            done.append(layer)
    except ValueError:
        for layer in done:  # all layers or none
            del layer.routers[task]
        raise
    if heads is not None and head is not None:
        heads[task] = head
    return model


def add_experts(model: M, n: int, *, tasks: Iterable[str] = ()) -> M:
    """Append n fresh experts to every MoE layer, in place.

    They are parameters of their own, which earlier tasks cannot reach: their outputs stay
    bit-equal. Tasks added later may use them.

    Args:
        model: a MoE ViT, a module with one, or a layer.
        n: experts per layer.
        tasks: existing tasks that may use the new experts too (their outputs change).

    Returns:
        ``model``.
    """
    tasks = [tasks] if isinstance(tasks, str) else list(tasks)
    for _, layer in moe_layers(model):
        layer.add_experts(n, tasks=tasks)
    return model


def set_top_k(model: M, task: str, top_k: int, *, layers: str = "*") -> M:
    """Let one task use another number of experts per token, in place.

    Args:
        model: a MoE ViT, a module with one, or a layer.
        task: whose.
        top_k: experts per token.
        layers: pattern of layer names, such as ``"*.mlp"``.

    Returns:
        ``model``.

    Raises:
        ValueError: unknown task, no such layer, or k outside 1..E; then nothing has changed.
    """
    chosen = [x for name, x in moe_layers(model) if fnmatchcase(name, layers)]
    if not chosen:
        raise ValueError(f"no MoE layer matches '{layers}'; layers: {_layer_names(model)}")
    for layer in chosen:
        layer.router(task)[1].check_top_k(top_k)
    for layer in chosen:
        layer.set_top_k(task, top_k)
    return model


class ParameterCount(NamedTuple):
    """Numbers of scalars."""

    trained: int
    total: int


def freeze_except(model: nn.Module, patterns: str | Sequence[str]) -> ParameterCount:
    """Train only the parameters whose names match, in place.

    Frozen parameters also lose their gradients: an old gradient, even of zeros, lets momentum and
    weight decay move them. Build the optimizer anew afterwards. Running statistics of
    normalisation layers are no parameters: keep such layers in eval mode.

    Args:
        model: any module.
        patterns: shell patterns of parameter names; `adaptation_patterns` has the usual ones.

    Raises:
        ValueError: a pattern matches nothing.
    """
    wanted = [patterns] if isinstance(patterns, str) else list(patterns)
    names = [n for n, _ in model.named_parameters()]
    for pattern in wanted:
        if not any(fnmatchcase(n, pattern) for n in names):
            raise ValueError(
                f"no parameter matches '{pattern}'; names look like {', '.join(names[-3:])}"
            )
    for name, p in model.named_parameters():
        p.requires_grad_(any(fnmatchcase(name, w) for w in wanted))
        if not p.requires_grad:
            p.grad = None
    return count_parameters(model)


def count_parameters(model: nn.Module) -> ParameterCount:
    """Trained and total parameters."""
    sizes = [(p.requires_grad, p.numel()) for p in model.parameters()]
    return ParameterCount(sum(n for t, n in sizes if t), sum(n for _, n in sizes))


def adaptation_patterns(model: nn.Module, task: str) -> dict[str, list[str]]:
    """Ways to adapt a model to a task, as patterns for `freeze_except`.

    Returns:
        "head", "routers and head", "new experts, routers and head" (if experts were added), and
        "all"; without the head where the model has none.
    """
    layers = moe_layers(model)
    layers[0][1].router(task)
    heads = _heads(model)
    head = [] if heads is None else [f"heads.{task}.*"]
    routers = [f"*routers.{task}.*", *head]
    ways = {"head": head} if head else {}
    ways["routers and head" if head else "routers"] = routers
    last = min(len(x.experts) for _, x in layers) - 1
    if last > 0:
        name = "new experts, routers and head" if head else "new experts and routers"
        ways[name] = [f"*experts.{last}.*", *routers]
    return ways | {"all": ["*"]}


def _lists(ids: Sequence[Sequence[int]], layers: int) -> list[list[int]]:
    """Expert ids of each layer."""
    if not isinstance(ids, Sequence) or any(
        isinstance(x, str) or not isinstance(x, Sequence) for x in ids
    ):
        raise ValueError(f"expected expert ids as one list for each MoE layer, got {ids!r}")
    if len(ids) != layers:
        raise ValueError(f"the model has {layers} MoE layers, got {len(ids)} lists")
    return [list(x) for x in ids]


def _heads(model: nn.Module) -> nn.ModuleDict | None:
    heads = getattr(model, "heads", None)
    return heads if isinstance(heads, nn.ModuleDict) else None


def _layer_names(model: nn.Module) -> str:
    return ", ".join(f"'{n}'" for n, _ in moe_layers(model))
