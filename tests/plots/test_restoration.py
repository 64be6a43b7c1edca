from pathlib import Path

import numpy as np
import torch

from visionlab.plots.restoration import plot_convergence, plot_panel


def test_panel_names_each_method_and_saves_its_numbers(tmp_path: Path) -> None:
    clean = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    restored = {"input": (clean * 0.9, [20.0, 21.0]), "TV": (clean, [30.5, 31.5])}
    figure = plot_panel(clean, restored, tmp_path / "panel.png", title="blur")
    titles = [ax.get_title() for ax in figure.axes]
    assert titles[:3] == ["clean", "input\n20.00 dB", "TV\n30.50 dB"]
    assert titles[5] == "31.50 dB"
    assert (tmp_path / "panel.png").stat().st_size > 1000
    with np.load(tmp_path / "panel.npz") as numbers:
        assert numbers["TV"].tolist() == [30.5, 31.5]


def test_panel_takes_colour(tmp_path: Path) -> None:
    clean = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    figure = plot_panel(clean, {"input": (clean, [20.0])}, tmp_path / "panel.png")
    assert figure.axes[0].images[0].get_array().shape == (8, 8, 3)


def test_convergence_draws_every_method_in_three_charts(tmp_path: Path) -> None:
    trace = {"psnr": [20.0, 25.0, 24.0], "objective": [3.0, 1.0, 0.0], "residual": [1.0, 0.1, 0.01]}
    figure = plot_convergence({"a": trace, "b": trace}, tmp_path / "curves.png")
    assert [len(ax.lines) for ax in figure.axes] == [2, 2, 2]
    assert figure.axes[0].get_ylabel() == "PSNR (dB)"
    assert {t.get_text() for t in figure.axes[0].get_legend().get_texts()} == {"a", "b"}
    with np.load(tmp_path / "curves.npz") as numbers:
        assert numbers["a_psnr"].tolist() == trace["psnr"]
