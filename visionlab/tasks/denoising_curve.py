"""Quality against computing time of a training run, as a picture."""

import csv
from pathlib import Path
from typing import Any


class DenoisingCurve:
    """Evaluation after a proximal training: validation PSNR against CPU minutes, as logged.

    Draws ``pictures/denoising.png``.
    """

    title = "Validation PSNR (dB) against CPU minutes"

    def run(self, task: Any, data: Any, output: Path) -> list[dict[str, Any]]:
        """One row per validation."""
        from visionlab.plots.proximal_prior import plot_quality_against_time
        from visionlab.plots.saving import save_figure

        minutes, curves = read_curves(output / "metrics.csv")
        if not minutes:
            return []
        figure = plot_quality_against_time(minutes, curves)
        save_figure(
            figure, output / "pictures" / "denoising.png", data={"minutes": minutes, **curves}
        )
        return [
            {
                "CPU minutes": round(m, 2),
                **{f"noise {k}": round(v[i], 2) for k, v in curves.items()},
            }
            for i, m in enumerate(minutes)
        ]


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
