"""Restored images side by side, and what solvers do along their iterations."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from visionlab.plots.saving import save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_STYLES = ("-", "--", "-.", ":")


def plot_panel(
    clean: Tensor,
    restored: Mapping[str, tuple[Tensor, Sequence[float]]],
    path: str | Path,
    *,
    title: str = "",
) -> "Figure":
    """One row per image: the clean one, then each method with its PSNR.

    Args:
        clean: ``(N, C, H, W)`` in [0, 1]; C is 1 or 3.
        restored: method -> images of the same shape and their PSNR in dB.
        path: picture to write.
        title: above all.
    """
    from matplotlib.figure import Figure

    rows, columns = len(clean), 1 + len(restored)
    figure = Figure(figsize=(1.9 * columns, 2.15 * rows + 0.4), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for i in range(rows):
        _image(axes[i][0], clean[i], "clean" if i == 0 else "")
        for ax, (name, (images, values)) in zip(axes[i][1:], restored.items()):
            _image(ax, images[i], (f"{name}\n" if i == 0 else "") + f"{values[i]:.2f} dB")
    figure.suptitle(title, fontsize=10)
    numbers = {name: values for name, (_, values) in restored.items()}
    save_figure(figure, path, data=numbers)
    return figure


def plot_convergence(
    traces: Mapping[str, Mapping[str, Sequence[float]]], path: str | Path, *, title: str = ""
) -> "Figure":
    """PSNR, objective above its last value, and fixed-point residual against the iteration.

    Args:
        traces: method -> ``psnr`` in dB, ``objective``, ``residual``, one value per iteration.
        path: picture to write.
        title: above all.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.4), layout="constrained")
    quality, objective, residual = figure.subplots(1, 3)
    for (name, trace), style in zip(traces.items(), _STYLES * len(traces)):
        steps = range(1, len(trace["psnr"]) + 1)
        quality.plot(steps, trace["psnr"], style, label=name)
        # below this share of the largest value a difference is rounding of single precision
        floor = 3e-5 * max(trace["objective"])
        above = [v if v > floor else float("nan") for v in trace["objective"]]
        objective.plot(steps[:-1], above[:-1], style, label=name)
        residual.plot(steps, trace["residual"], style, label=name)
    quality.set(ylabel="PSNR (dB)", xscale="log", xlabel="iteration")
    objective.set(ylabel="objective above its last value", xscale="log", yscale="log",
                  xlabel="iteration")  # fmt: skip
    residual.set(ylabel="relative change per iteration", xscale="log", yscale="log",
                 xlabel="iteration")  # fmt: skip
    for ax in (quality, objective, residual):
        ax.grid(alpha=0.3)
    quality.legend(fontsize=8)
    figure.suptitle(title, fontsize=10)
    flat = {f"{n}/{k}": v for n, trace in traces.items() for k, v in trace.items()}
    save_figure(figure, path, data={k.replace("/", "_"): v for k, v in flat.items()})
    return figure


def _image(ax: "Axes", image: Tensor, label: str) -> None:
    pixels = image.detach().cpu().clamp(0, 1).permute(1, 2, 0).numpy()
    ax.imshow(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels, cmap="gray", vmin=0, vmax=1)
    ax.set_title(label, fontsize=7)
    ax.set_axis_off()
