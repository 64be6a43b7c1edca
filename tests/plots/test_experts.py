"""Heat map of experts and the course of the mutual information."""

from pathlib import Path

import numpy as np
import pytest
import torch

from visionlab.moe import Usage
from visionlab.plots.experts import plot_information, plot_usage


def found() -> Usage:
    counts = torch.tensor([[90, 10, 0, 0], [0, 0, 50, 50]])
    soft = counts.double() / 100
    layers = [f"blocks.{i}.mlp" for i in range(4)]
    return Usage(["digits", "boxes"], layers, [[1, 1]] * 4, [counts] * 4, [soft] * 4)


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_heat_map(kind: str, tmp_path: Path) -> None:
    figure = plot_usage(found(), tmp_path / "deep" / "experts.png", kind=kind)
    panel = figure.axes[0]
    assert [t.get_text() for t in panel.get_yticklabels()] == ["digits", "boxes"]
    assert [t.get_text() for t in panel.get_xticklabels()] == ["0", "1", "2", "3"]
    assert panel.images[0].get_array().max() == 0.9
    assert (
        "100% of its ceiling" in panel.get_title()
    )  # disjoint experts: the information is at its ceiling
    assert (tmp_path / "deep" / "experts.png").stat().st_size > 1000
    beside = np.load(tmp_path / "deep" / "experts.npz")["blocks.3.mlp"]
    assert beside.tolist() == [[0.9, 0.1, 0, 0], [0, 0, 0.5, 0.5]]


def test_information_over_training(tmp_path: Path) -> None:
    history = {"on": [(0, [0.0, 0.1]), (10, [0.5, 0.7])], "off": [(0, [0.0, 0.0])]}
    figure = plot_information(history, tmp_path / "information.png")
    (axes,) = figure.axes
    assert axes.lines[0].get_ydata().tolist() == pytest.approx([0.05, 0.6])
    assert [t.get_text() for t in axes.get_legend().get_texts()] == ["on", "off"]
    assert np.load(tmp_path / "information.npz")["on.step"].tolist() == [0, 10]
    with pytest.raises(ValueError, match="nothing to draw"):
        plot_information({"on": []})
