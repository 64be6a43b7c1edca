"""Pictures of a learned prior and its training: beside the true one, along paths, over time."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from visionlab.proximal.curves import PriorCurve

_STYLES = (("#0b4f8a", "-"), ("#e07b00", "--"), ("#6a1b7a", "-."), ("#3a7d2c", ":"))
_LABELS = {
    "noise": "standard deviation of the noise",
    "blur": "standard deviation of the blur, px",
    "mixing": "share of the other image",
}


def plot_laplacian(
    y: ArrayLike,
    proxes: Mapping[str, ArrayLike],
    x: ArrayLike,
    priors: Mapping[str, ArrayLike],
    *,
    threshold: float = 1.0,
) -> "Figure":
    """Learned proxes against soft thresholding, learned priors against |x|.

    Args:
        y: (N,) points of the prox.
        proxes: name -> f(y), (N,).
        x: (M,) points of the prior.
        priors: name -> R(x), (M,); each is shifted by the constant that fits best.
        threshold: of the soft thresholding, which is also the slope of the true prior.
    """
    figure, (left, right) = _panels(2)
    y, x = np.asarray(y, float), np.asarray(x, float)
    left.plot(y, np.sign(y) * np.maximum(np.abs(y) - threshold, 0), color="0.6", lw=4, label="true")
    right.plot(x, threshold * np.abs(x), color="0.6", lw=4, label="true")
    for (name, values), (colour, line) in zip(proxes.items(), _STYLES):
        left.plot(y, np.asarray(values, float), line, color=colour, lw=1.4, label=name)
    for (name, values), (colour, line) in zip(priors.items(), _STYLES):
        shift = np.median(np.asarray(values, float) - threshold * np.abs(x))
        right.plot(x, np.asarray(values, float) - shift, line, color=colour, lw=1.4, label=name)
    left.set(xlabel="y", ylabel="f(y)", title="prox and soft thresholding")
    right.set(xlabel="x", ylabel="R(x) up to a constant", title="prior and |x|")
    return _finish(figure, (left, right))


def plot_prior_curves(curves: Sequence["PriorCurve"]) -> "Figure":
    """R above its value at the first level: median and quartiles over the images, by path.

    Levels at which the inversion of some image did not converge are ringed.
    """
    figure, panels = _panels(len(curves))
    for panel, curve, (colour, line) in zip(panels, curves, _STYLES * len(curves)):
        rise = (curve.value - curve.value[:1]).double().cpu().numpy()
        low, middle, high = np.quantile(rise, [0.25, 0.5, 0.75], axis=1)
        panel.fill_between(curve.levels, low, high, color=colour, alpha=0.2, lw=0)
        label = f"median of {rise.shape[1]}, quartiles shaded"
        panel.plot(curve.levels, middle, line, color=colour, marker=".", label=label)
        open_ = ~curve.converged.all(dim=1).cpu().numpy()
        if open_.any():
            at = np.asarray(curve.levels)[open_]
            panel.plot(at, middle[open_], "o", mfc="none", color="k", label="not all converged")
        panel.set(xlabel=_LABELS[curve.path], ylabel="R(x) - R(image)", title=curve.path)
    return _finish(figure, panels)


def plot_quality_against_time(
    minutes: Sequence[float],
    curves: Mapping[str, Sequence[float]],
    *,
    bars: Mapping[str, Mapping[str, float]] | None = None,
) -> "Figure":
    """Validation PSNR of a training run against its computing time.

    Args:
        minutes: of the process, at each validation.
        curves: noise level -> PSNR in dB, as many.
        bars: method -> noise level -> PSNR: horizontal lines beside the curves.
    """
    figure, (panel,) = _panels(1)
    for (level, values), (colour, line) in zip(curves.items(), _STYLES * len(curves)):
        panel.plot(minutes, values, line, color=colour, marker=".", label=f"noise {level}")
        for name, of_level in (bars or {}).items():
            panel.axhline(of_level[level], color=colour, lw=1, ls=(0, (6, 3)))
            panel.annotate(f"{name}, noise {level}", (max(minutes), of_level[level]), fontsize=8,
                           ha="right", va="bottom", color=colour)  # fmt: skip
    panel.set(xlabel="CPU minutes", ylabel="validation PSNR (dB)")
    return _finish(figure, (panel,))


def _panels(count: int) -> tuple["Figure", Sequence[Any]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * count, 3.6), layout="constrained")
    return figure, list(np.atleast_1d(figure.subplots(1, count)))


def _finish(figure: "Figure", panels: Sequence[Any]) -> "Figure":
    for panel in panels:
        panel.grid(alpha=0.3)
        panel.legend(frameon=False, fontsize=8)
    return figure
