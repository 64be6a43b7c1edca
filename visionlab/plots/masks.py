"""What a mask strategy does: filter, noise, masks, their spectrum and their coverage."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visionlab.masking.base import Mask
from visionlab.masking.colors import ColorMask
from visionlab.masking.keys import GeneratorDraws
from visionlab.masking.statistics import MaskStatistics, mask_statistics
from visionlab.plots.saving import save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = (
    "filter H(f)",
    "noise (scores)",
    "masks (white = visible)",
    "",
    "periodogram of the masks",
    "its ring means",
    "share of masks\nthat show a patch",
)
_FREQUENCY = "cycles per patch"
_CAPTION = (
    "P: pairs of visible neighbours / (2 x visible patches). Periodogram: 1 = white noise, "
    "frequency 0 in the middle."
)


def plot_masks(
    masks: Mapping[str, Mask],
    path: str | Path | None = None,
    *,
    samples: int = 2000,
    key: tuple[int, ...] = (0,),
    images: Tensor | None = None,
    epoch: float = 0,
) -> "Figure":
    """One row per strategy: filter, noise, two masks, spectrum of many masks, coverage.

    Args:
        masks: label -> strategy, each with a grid.
        path: file to write; the numbers are saved beside it.
        samples: masks behind the statistics.
        key: key of the draws.
        images: (B, C, H, W), for strategies that read images; then ``samples`` is B.
        epoch: for scheduled masks.

    Example:
        >>> from visionlab.masking import create_mask
        >>> figure = plot_masks({"green": create_mask("green", (14, 14))}, samples=100)
    """
    from matplotlib.figure import Figure

    if not masks:
        raise ValueError("no masks to plot: give at least one, by label")
    figure = Figure(figsize=(15, 0.6 + 2.05 * len(masks)), layout="constrained")
    axes = figure.subplots(len(masks), len(_COLUMNS), squeeze=False)
    data: dict[str, Any] = {}
    for row, (label, schedule) in zip(axes, masks.items()):
        mask = schedule.at(epoch)
        seen = images if mask.needs_images else None
        count = len(images) if mask.needs_images and images is not None else samples
        stats = mask_statistics(mask, samples=count, key=key, images=seen)
        _draw_row(row, mask, stats, key, seen)
        row[0].set_ylabel(f"{label}\nP = {stats.neighbour_rate:.3f}", fontsize=11)
        data |= {
            f"{label}_periodogram": stats.periodogram,
            f"{label}_frequency": stats.frequency,
            f"{label}_energy": stats.energy,
            f"{label}_keep_rate": stats.keep_rate,
            f"{label}_neighbour_rate": stats.neighbour_rate,
        }
    for axis, title in zip(axes[0], _COLUMNS):
        axis.set_title(title, fontsize=10)
    for axis in (axes[-1][0], axes[-1][5]):
        axis.set_xlabel(_FREQUENCY, fontsize=9)
    figure.supxlabel(_CAPTION, fontsize=9)
    if path is not None:
        save_figure(figure, path, data)
    return figure


def _draw_row(
    row: NDArray[Any],
    mask: Mask,
    stats: MaskStatistics,
    key: tuple[int, ...],
    images: Tensor | None,
) -> None:
    _draw_filter(row[0], mask)
    first = None if images is None else images[:2]
    scores = mask.scores(GeneratorDraws(key, 2, torch.device("cpu")), first)
    _picture(row[1], scores[0].view(mask.bound_grid), cmap="gray")
    visible = mask(2, key=key, images=first).visible
    for axis, picture in zip(row[2:4], visible):
        _picture(axis, picture, cmap="gray", vmin=0, vmax=1)
    power = np.fft.fftshift(stats.periodogram.numpy())
    _picture(row[4], power, cmap="viridis", vmin=0, bar=True)
    row[5].plot(stats.frequency, stats.energy, "o-", color="black", markersize=4)
    row[5].axhline(1, color="0.6", linestyle=":", linewidth=1)  # white noise
    row[5].set_ylim(0, 1.1 * max(float(stats.energy.max()), 1))
    row[5].set_xlim(0, 0.72)
    rate = mask.keep / (stats.keep_rate.shape[0] * stats.keep_rate.shape[1])
    low = min(0.5 * rate, float(stats.keep_rate.min()))
    high = max(1.5 * rate, float(stats.keep_rate.max()))
    _picture(row[6], stats.keep_rate, cmap="viridis", vmin=low, vmax=high, bar=True)


def _draw_filter(axis: "Axes", mask: Mask) -> None:
    """H(f), scaled to a largest value of 1; nothing for strategies without a filter."""
    if not isinstance(mask, ColorMask):
        axis.set_xticks([])
        axis.set_yticks([])
        axis.text(0.5, 0.5, type(mask).__name__, ha="center", va="center", fontsize=9)
        return
    frequency = np.linspace(0, np.sqrt(0.5), 200)
    amplitude = np.abs(mask.spectrum(frequency))
    axis.plot(frequency, amplitude / max(amplitude.max(), 1e-12), color="black")
    axis.set_ylim(0, 1.08)
    axis.set_xlim(0, 0.72)


def _picture(axis: "Axes", values: Any, *, bar: bool = False, **options: Any) -> None:
    picture = axis.imshow(np.asarray(values, dtype=float), **options)
    axis.set_xticks([])
    axis.set_yticks([])
    if bar and axis.figure is not None:
        axis.figure.colorbar(picture, ax=axis, shrink=0.85)
