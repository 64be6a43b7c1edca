"""Pictures of a mixture of experts: who uses which expert, and how tasks part over training.

Each function returns a matplotlib figure and, given a path, writes it there with its numbers
beside. Colours run from light to dark, so that they survive a grey printer.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from visionlab.plots.saving import save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from visionlab.moe.expert_usage import Usage

_LINES = ("-", "--", ":", "-.")


def plot_usage(usage: "Usage", path: str | Path | None = None, *, kind: str = "hard") -> "Figure":
    """Heat map of tasks against experts, one panel a MoE layer, with its mutual information.

    Experts are ordered by the task that uses them most, so that groups show as blocks; the ticks
    tell their numbers.

    Args:
        usage: `visionlab.moe.usage` of a model.
        path: file to write.
        kind: "hard" (share of the selections) or "soft" (mean probability).
    """
    from matplotlib.figure import Figure

    tables = [np.asarray(t) for t in (usage.hard if kind == "hard" else usage.soft)]
    information = usage.information(kind)
    columns = min(len(tables), 3)
    lines = -(-len(tables) // columns)
    width = max(2.6, 0.22 * max(t.shape[1] for t in tables))
    height = 1.1 + 0.3 * len(usage.tasks)
    figure = Figure(figsize=(1.2 + width * columns, 0.5 + height * lines), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    top = max(float(t.max()) for t in tables)
    for i, (panel, table) in enumerate(zip(panels, tables, strict=False)):
        order = np.lexsort((-table.max(0), table.argmax(0)))
        shown = panel.imshow(table[:, order], cmap="Blues", vmin=0, vmax=top, aspect="auto")
        value, share = float(information["nats"][i]), float(information["normalised"][i])
        panel.set_title(
            f"{usage.layers[i]}\nI(T; E) = {value:.2f} nats, {share:.0%} of its ceiling", fontsize=8
        )
        panel.set_xticks(range(len(order)), order, fontsize=5 if len(order) > 16 else 6)
        panel.set_yticks(range(len(usage.tasks)), usage.tasks, fontsize=8)
        panel.set_xlabel("expert", fontsize=8)
    for panel in panels[len(tables) :]:
        panel.set_axis_off()
    what = "share of the task's selections" if kind == "hard" else "mean probability"
    figure.colorbar(shown, ax=panels, label=what, shrink=0.8)
    if path is not None:
        save_figure(figure, path, dict(zip(usage.layers, tables, strict=True)))
    return figure


def plot_information(
    history: Mapping[str, Sequence[tuple[int, Sequence[float]]]],
    path: str | Path | None = None,
) -> "Figure":
    """Normalised mutual information over training, one line a run.

    Args:
        history: run -> (step, values) in order; the line is the mean of the values, the band
            their range: those of the MoE layers, or of several seeds.
        path: file to write.

    Raises:
        ValueError: no run, or a run without a value.
    """
    from matplotlib.figure import Figure

    if not history or not all(history.values()):
        raise ValueError(f"nothing to draw: runs {list(history)} need at least one value each")
    figure = Figure(figsize=(5.5, 3.4), layout="constrained")
    axes = figure.subplots()
    for i, (run, points) in enumerate(history.items()):
        steps = [step for step, _ in points]
        values = np.array([layers for _, layers in points], dtype=float)
        grey = str(0.6 * i / max(len(history) - 1, 1))
        axes.plot(steps, values.mean(1), _LINES[i % len(_LINES)], color=grey, label=run)
        axes.fill_between(steps, values.min(1), values.max(1), color=grey, alpha=0.15, lw=0)
    axes.set(xlabel="optimizer step", ylabel="I(T; E) / ceiling", ylim=(0, 1))
    axes.legend(frameon=False)
    if path is not None:
        arrays: dict[str, Any] = {}
        for run, points in history.items():
            arrays[f"{run}.step"] = [step for step, _ in points]
            arrays[f"{run}.normalised"] = [list(layers) for _, layers in points]
        save_figure(figure, path, arrays)
    return figure
