"""What a mixture of experts can be taken apart into: pruned to a task, extended by a task.

The table of the heterogeneous multi-task paper (arXiv 2306.17165): fewer parameters by pruning,
fewer trained parameters by adapting routers and head only, no forgetting by expansion; beside
full fine-tuning.
"""

import copy
import json
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import lightning as L

from visionlab import atomic, checkpoint
from visionlab import config as configs
from visionlab.data.mixture import TaskMixture
from visionlab.data.randomness import seed_all
from visionlab.heads.multitask import MultiTaskModel
from visionlab.moe.expert_usage import Usage, usage
from visionlab.moe.flops import Cost, cost
from visionlab.moe.structure import moe_layers
from visionlab.moe.surgery import (
    adaptation_patterns,
    add_experts,
    add_task,
    freeze_except,
    prune_to_task,
)
from visionlab.plots.experts import plot_usage
from visionlab.tasks.multitask import MultiTaskTraining
from visionlab.tasks.multitask_evaluation import evaluate_task, load_multitask, prepared
from visionlab.tasks.optimizers import Recipe
from visionlab.tasks.tables import format_table
from visionlab.tasks.trust import add_trust_code

Rows = list[dict[str, Any]]


def measured_usage(
    model: MultiTaskModel, data: TaskMixture, *, split: str = "train", batches: int = 20
) -> Usage:
    """Which experts each task uses, on the first batches of a split."""
    device = next(model.parameters()).device
    loaders = {
        task: prepared(data, islice(loader, batches), device)
        for task, loader in data.loaders(split).items()
        if task in model.heads
    }
    return usage(model, loaders)


def _prune_rows(
    model: MultiTaskModel,
    data: TaskMixture,
    found: Usage,
    *,
    split: str = "val",
    shares: Sequence[float] = (0.5, 0.25),
) -> Rows:
    """Each task cut out with all experts it ever used, then with a share of all experts.

    Args:
        model: a MoE multi-task model; stays as it is.
        data: its data.
        found: `measured_usage`, on training data.
        split: split that is scored.
        shares: shares of the experts of each layer that are kept (never fewer than k).
    """
    rows = []
    experts = min(layer.num_experts for _, layer in moe_layers(model))
    for task in model.tasks:
        full = _score(model, data, task, split)
        rows.append(_prune_row(model, data, task, "all experts", full, full))
        top_k = max(k[found.tasks.index(task)] for k in found.top_k)
        counts = [max(round(share * experts), top_k) for share in shares]
        ways: dict[str, float | int] = {"ever used": 1.0}
        ways |= {f"{n} of {experts}": n for n in dict.fromkeys(counts)}
        for way, keep in ways.items():
            pruned = prune_to_task(model, task, keep=keep, usage=found)
            score = _score(pruned, data, task, split)
            rows.append(_prune_row(pruned, data, task, way, score, full))
    return rows


def _prune_row(
    model: MultiTaskModel, data: TaskMixture, task: str, way: str, score: float, full: float
) -> dict[str, Any]:
    price = _cost(model, data, task)
    return {
        "task": task,
        "experts": way,
        "percent": round(score, 2),
        "change": round(score - full, 2),
        "parameters": price.total,
        "MFLOPs": round(price.flops / 1e6, 2),
    }


def _extension_rows(
    model: MultiTaskModel,
    old_data: TaskMixture,
    node: Mapping[str, Any],
    *,
    steps: int,
    seed: int,
    source: str | None = None,
    new_experts: int = 2,
    split: str = "val",
) -> Rows:
    """A new task learnt in several ways, each from the same trained model.

    Args:
        model: a trained MoE multi-task model; stays as it is.
        old_data: data of its tasks, to measure what they forget.
        node: resolved config of the new task alone; its head, data and optimizer are used.
        steps: optimiser steps of each way.
        seed: of data order, new head and new routers.
        source: old task whose routers the new one starts from; fresh routers if None.
        new_experts: experts added to each layer where new experts are trained.
        split: split that is scored.

    Raises:
        ValueError: the config holds more than one new task.
    """
    heads = node["task"]["model"]["heads"]
    if len(heads) != 1:
        raise ValueError(f"the config of the new task has the heads {sorted(heads)}; expected one")
    name = next(iter(heads))
    before = {task: _score(model, old_data, task, split) for task in model.tasks}
    rows = []
    for way in ("head", "routers and head", "new experts, routers and head", "all"):
        seed_all(seed)
        head = configs.build(heads[name], key="head")
        data: TaskMixture = configs.build(node["data"], key="data")
        recipe = configs.build(node["task"]["optimizer"], key="optimizer")
        data.seed = seed
        extended = add_task(copy.deepcopy(model), name, head=head, source=source)
        if way.startswith("new experts"):
            add_experts(extended, new_experts, tasks=[name])
        freeze_except(extended, adaptation_patterns(extended, name)[way])
        price = _cost(extended, data, name)
        adapt(extended, data, recipe, steps=steps, seed=seed)
        after = {task: _score(extended, old_data, task, split) for task in before}
        rows.append(
            {
                "trained": way,
                name: round(_score(extended, data, name, split), 2),
                "trained parameters": price.trained,
                "share": f"{100 * price.trained / price.total:.1f} %",
                "MFLOPs": round(price.flops / 1e6, 2),
                "worst old task": round(min(after[t] - before[t] for t in before), 2),
            }
        )
    return rows


def adapt(
    model: MultiTaskModel, data: TaskMixture, recipe: Recipe, *, steps: int, seed: int
) -> None:
    """Train what is not frozen on ``data``, in place."""
    task = MultiTaskTraining(model.train(), recipe, gradient_clip=1.0)
    task.seed = seed
    trainer = L.Trainer(
        max_steps=steps,
        max_epochs=steps,  # at least one step in each
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    trainer.fit(task, datamodule=data)


def _save_pruned(model: MultiTaskModel, config: Mapping[str, Any], path: Path) -> None:
    """Write a model after surgery so that ``visionlab.load`` rebuilds it.

    Args:
        model: after surgery; its heads are among those of ``config``.
        config: resolved config of the run that the model comes from.
        path: the file.
    """
    node = copy.deepcopy(dict(config["task"]["model"]))
    node["heads"] = {task: node["heads"][task] for task in model.tasks}
    backbone: Any = model.backbone
    node["backbone"] = {**node["backbone"], "layout": backbone.layout}
    checkpoint.save_model(model, path, node)


def _score(model: MultiTaskModel, data: TaskMixture, task: str, split: str) -> float:
    return next(iter(evaluate_task(model, data, task, split=split).values()))


def _cost(model: MultiTaskModel, data: TaskMixture, task: str) -> Cost:
    side = data.datasets[task].side("train")
    return cost(model, task, (side, side))


def add_arguments(parser: ArgumentParser) -> None:
    """Arguments of ``tools/evaluate.py surgery``."""
    add_trust_code(parser)
    parser.add_argument("checkpoint", type=Path, help="last.ckpt of a multi-task MoE run")
    parser.add_argument("--split", default="val", help="split that is scored (default val)")
    parser.add_argument(
        "--keep", type=float, nargs="+", default=[0.5, 0.25], help="shares of the experts kept"
    )
    parser.add_argument("--save", type=Path, help="folder for the model pruned to each task")
    parser.add_argument("--extend", type=Path, help="config of a new task alone, to be learnt")
    parser.add_argument("--source", help="task whose routers the new task starts from")
    parser.add_argument("--steps", type=int, default=250, help="steps of each way to learn it")


def run(args: Namespace) -> None:
    """Print the tables; write ``surgery.json`` and the heat map ``experts.png`` beside it."""
    task, data = load_multitask(args.checkpoint, trust_code=args.trust_code)
    model: MultiTaskModel = task.model
    if not model.routed:
        raise ValueError(f"{args.checkpoint} has no MoE layers; surgery needs experts")
    found = measured_usage(model, data)
    tables = {
        "Pruned to a task": _prune_rows(model, data, found, split=args.split, shares=args.keep)
    }
    if args.extend is not None:
        node = configs.read(args.extend)
        configs.check(node, str(args.extend), trust_code=args.trust_code)
        tables["New task"] = _extension_rows(
            model,
            data,
            node,
            steps=args.steps,
            seed=task.seed,
            source=args.source,
            split=args.split,
        )
    for title, rows in tables.items():
        print(f"\n{format_table(rows, title)}")
    plot_usage(found, args.checkpoint.parent / "experts.png")
    report = {**tables, "usage": found.as_dict()}
    atomic.write_text(json.dumps(report, indent=2), args.checkpoint.parent / "surgery.json")
    if args.save is not None:
        _save_each(model, found, task.run_config, args)


def _save_each(model: MultiTaskModel, found: Usage, config: Any, args: Namespace) -> None:
    args.save.mkdir(parents=True, exist_ok=True)
    experts = min(layer.num_experts for _, layer in moe_layers(model))
    for task in model.tasks:
        top_k = max(k[found.tasks.index(task)] for k in found.top_k)
        keep = max(round(args.keep[0] * experts), top_k)
        pruned = prune_to_task(model, task, keep=keep, usage=found)
        _save_pruned(pruned, config, args.save / f"{task}.pt")
        print(f"{task} with {keep} of {experts} experts: {args.save / f'{task}.pt'}")
