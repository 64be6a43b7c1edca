"""Quality against computing time of a training run, beside total variation, as a picture."""

import csv
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from visionlab.tasks.proximal_matching import ProximalMatching

# training images that choose the weight of total variation
_CHOOSE_ON = 64


class DenoisingCurve:
    """Evaluation after a proximal training: validation PSNR against CPU minutes, as logged.

    Draws ``pictures/denoising.png``, with the PSNR of total variation on the same noisy pictures,
    its weight chosen on training pictures, as lines to pass.
    """

    title = "Validation PSNR (dB) against CPU minutes"

    def run(self, task: Any, data: Any, output: Path) -> list[dict[str, Any]]:
        """One row per validation, and one of total variation."""
        from visionlab.plots.proximal_prior import plot_quality_against_time
        from visionlab.plots.saving import save_figure

        minutes, curves = read_curves(output / "metrics.csv")
        if not minutes:
            return []
        bars = {
            name: total_variation_psnr(task, data, level)
            for name, level in zip(curves, task.validation_levels, strict=True)
        }
        figure = plot_quality_against_time(minutes, curves, bars={"TV": bars})
        numbers = {f"TV, {k}": [v] for k, v in bars.items()}
        save_figure(
            figure,
            output / "pictures" / "denoising.png",
            data={"minutes": minutes, **curves, **numbers},
        )
        rows = [
            {"CPU minutes": round(m, 2), **_levels({k: v[i] for k, v in curves.items()})}
            for i, m in enumerate(minutes)
        ]
        return [*rows, {"CPU minutes": "TV", **_levels(bars)}]


def _levels(values: dict[str, float]) -> dict[str, Any]:
    return {f"noise {k}": round(v, 2) for k, v in values.items()}


def total_variation_psnr(task: "ProximalMatching", data: Any, level: float) -> float:
    """Mean PSNR of TV denoising on the noisy validation pictures of the run, in dB.

    Args:
        level: standard deviation of the noise; the weight is the best of nine on training pictures.
    """
    from visionlab.tasks.restoration_problems import geometric

    chosen = islice(data.loader("train"), max(1, _CHOOSE_ON // data.batch_size))
    known = [_noisy(task, data, batch, i, level) for i, batch in enumerate(chosen)]
    weights = [level * w for w in geometric(0.2, 3.0, 9)]
    weight = max(weights, key=lambda w: _mean_psnr(known, w))
    seen = [_noisy(task, data, b, i, level) for i, b in enumerate(data.loader("val"))]
    return _mean_psnr(seen, weight)


def _noisy(
    task: "ProximalMatching", data: Any, batch: dict[str, Any], batch_idx: int, level: float
) -> tuple[Tensor, Tensor]:
    clean = data.normalise(batch["image"])
    return clean, clean + level * task.validation_noise({**batch, "image": clean}, batch_idx)


def _mean_psnr(pairs: Sequence[tuple[Tensor, Tensor]], weight: float) -> float:
    from visionlab.proximal.baselines import tv_denoise
    from visionlab.tasks.restoration_problems import psnr

    found = [psnr(tv_denoise(noisy, weight), clean) for clean, noisy in pairs]
    return float(torch.cat(found).mean())


def read_curves(path: Path) -> tuple[list[float], dict[str, list[float]]]:
    """CPU minutes, and noise level -> PSNR, at each validation of a ``metrics.csv``.

    The clock of a process starts again when a run resumes: its minutes are added to those before.
    """
    steps: dict[str, dict[str, float]] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            if row["metric"].startswith("val/"):
                steps.setdefault(row["step"], {})[row["metric"][4:]] = float(row["value"])
    minutes: list[float] = []
    curves: dict[str, list[float]] = {}
    before = last = 0.0
    for values in steps.values():
        now = values.pop("cpu_minutes")
        before += last if now < last else 0.0
        last = now
        minutes.append(before + now)
        for name, value in values.items():
            curves.setdefault(name.removeprefix("psnr_"), []).append(value)
    return minutes, curves
