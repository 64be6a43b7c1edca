"""Tables over seeds of multi-task runs: which model is ahead, what surgery keeps and costs.

Read from run folders (``metrics.csv``, ``surgery.json``); nothing is trained here.
"""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from visionlab.figures import Claim, Column, Figure, FigureTable, at_least, measured
from visionlab.figures.record import Value
from visionlab.tasks.curves import read_curves

INFORMATION = "train/information_normalised"
Scores = dict[str, float]
_WRITTEN = {"top1": "top-1", "ap50": "AP50", "miou": "mIoU"}


def last_scores(folders: Sequence[Path], metrics: Mapping[str, str]) -> Scores | None:
    """Last validation of the runs that make up one row of one seed.

    Args:
        folders: of the runs; between them they hold every task.
        metrics: task -> its metric.

    Returns:
        Task -> percent, ``mean`` and, for a MoE, ``information``; None if a run is not finished.
    """
    found: Scores = {}
    for folder in folders:
        if not (folder / "results.json").exists():  # written last
            return None
        curves = read_curves(folder / "metrics.csv")
        values = {task: curves.get(f"val/{task}_{metric}") for task, metric in metrics.items()}
        found |= {task: curve[-1][1] for task, curve in values.items() if curve}
        if INFORMATION in curves:
            found["information"] = curves[INFORMATION][-1][1]
    return {**found, "mean": statistics.mean(found[task] for task in metrics)}


def information_history(folders: Sequence[Path]) -> list[tuple[int, list[float]]]:
    """(step, normalised mutual information of each run) at the steps that all runs logged."""
    curves = [dict(read_curves(f / "metrics.csv").get(INFORMATION, [])) for f in folders]
    if not curves:
        return []
    steps = sorted(set.intersection(*(set(curve) for curve in curves)))
    return [(step, [curve[step] for curve in curves]) for step in steps]


def comparison_table(
    id: str,
    title: str,
    rows: Mapping[str, Mapping[int, Scores]],
    metrics: Mapping[str, str],
    *,
    note: str,
    within: str | None = None,
    ahead_of: str | None = None,
) -> FigureTable:
    """Mean over seeds and each seed; the first row is the one that claims something.

    Args:
        id: of the table.
        title: of the table.
        rows: words of a row -> seed -> scores; rows without a seed are left out, and what is
            claimed of two rows is over the seeds that both have.
        metrics: task -> its metric.
        note: what to know when reading it.
        within: row that the first one is claimed to reach on each task, to one point.
        ahead_of: row that the first one is claimed to beat on the mean over tasks.
    """
    rows = {what: seeds for what, seeds in rows.items() if seeds}
    scores = {what: list(seeds.values()) for what, seeds in rows.items()}
    figures = [Figure(what, _over_seeds(s), _spread(s)) for what, s in scores.items()]
    if figures:
        figures[0] = _with_claims(figures[0], rows, list(metrics), within, ahead_of)
    cells = {task: f"{task}, {_WRITTEN.get(m, m)}" for task, m in metrics.items()}
    cells["mean"] = "mean"
    columns = [
        Column(label, f"{{{name}:.1f}} ({{{name}_each}})", best=f"max {name}")
        for name, label in cells.items()
    ]
    columns.append(Column("information / ceiling", "{information:.2f}"))
    return measured(
        id, title, head="model", columns=columns, figures=figures, note=note, source="run folder"
    )


def _over_seeds(seeds: Sequence[Scores]) -> dict[str, Value]:
    values: dict[str, Value] = {}
    for name in seeds[0]:
        numbers = [seed[name] for seed in seeds]
        values[name] = statistics.mean(numbers)
        values[f"{name}_each"] = ", ".join(f"{n:.1f}" for n in numbers)
    return values


def _spread(seeds: Sequence[Scores]) -> dict[str, list[float]]:
    return {n: [min(s[n] for s in seeds), max(s[n] for s in seeds)] for n in seeds[0]}


def _with_claims(
    first: Figure,
    rows: Mapping[str, Mapping[int, Scores]],
    tasks: Sequence[str],
    within: str | None,
    ahead_of: str | None,
) -> Figure:
    ours = rows[first.what]
    values, claims = dict(first.values), []
    compared: list[tuple[str, str | None, float]] = [(t, within, -1.0) for t in tasks]
    for name, other, least in [*compared, ("mean", ahead_of, 0.0)]:
        theirs = rows.get(other or "", {})
        if common := ours.keys() & theirs.keys():
            key = f"{name} to {'single' if other == within else 'dense'}"
            values[key] = statistics.mean(ours[s][name] - theirs[s][name] for s in common)
            claims.append(at_least(key, least))
    if "information" in values:
        claims.append(Claim("information", ">", 0.5))
    return Figure(first.what, values, first.spread, claims)


def surgery_reports(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """``surgery.json`` of each run that has one."""
    paths = [folder / "surgery.json" for folder in folders]
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()]


def pruning_table(id: str, title: str, reports: Sequence[Mapping[str, Any]]) -> FigureTable:
    """Each task cut out with a part of the experts: change of its score, share of the weights."""
    figures = []
    for same in zip(*(report["Pruned to a task"] for report in reports)):
        if same[0]["experts"] == "all experts":
            whole = [row["parameters"] for row in same]
            continue
        changes = [row["change"] for row in same]
        left = [100 * row["parameters"] / all_ for row, all_ in zip(same, whole)]
        values: dict[str, Value] = {
            "change": statistics.mean(changes),
            "change_each": ", ".join(f"{c:.1f}" for c in changes),
            "left": statistics.mean(left),
        }
        claims = [at_least("change", -1.0)] if _is_half(same[0]["experts"]) else []
        spread = {"change": [min(changes), max(changes)], "left": [min(left), max(left)]}
        figures.append(Figure(f"{same[0]['task']}, {same[0]['experts']}", values, spread, claims))
    columns = [
        Column("change, points", "{change:.1f} ({change_each})"),
        Column("parameters left", "{left:.0f} %"),
    ]
    note = "Same test pictures; usage measured on training pictures. Mean over seeds (each seed)."
    return measured(
        id, title, head="task, experts kept", columns=columns, figures=figures, note=note,
        source="run folder",
    )  # fmt: skip


def _is_half(experts: str) -> bool:
    """Whether these words say that half of the experts stay: ``4 of 8``."""
    kept, _, number = experts.partition(" of ")
    return bool(number) and 2 * int(kept) == int(number)


def extension_table(id: str, title: str, reports: Sequence[Mapping[str, Any]]) -> FigureTable:
    """A new task learnt in several ways, with its price and what it does to the old tasks."""
    figures, task = [], ""
    for same in zip(*(report["New task"] for report in reports)):
        way, task = same[0]["trained"], list(same[0])[1]
        scores, worst = [row[task] for row in same], [row["worst old task"] for row in same]
        values: dict[str, Value] = {
            "score": statistics.mean(scores),
            "score_each": ", ".join(f"{s:.1f}" for s in scores),
            "parameters": same[0]["trained parameters"],
            "share": same[0]["share"],
            "worst": statistics.mean(worst),
        }
        spread = {"score": [min(scores), max(scores)], "worst": [min(worst), max(worst)]}
        claims = [at_least("worst", 0)] if way != "all" else []
        figures.append(Figure("everything" if way == "all" else way, values, spread, claims))
    columns = [
        Column(f"{task}, top-1", "{score:.1f} ({score_each})", best="max score"),
        Column("trained parameters", "{parameters:,} ({share})"),
        Column("worst change of an old task", "{worst:.1f}"),
    ]
    note = "From the same trained model, routers copied from an old task. Mean over seeds (each)."
    return measured(
        id, title, head="trained", columns=columns, figures=figures, note=note, source="run folder"
    )
