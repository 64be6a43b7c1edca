import numpy as np
import pytest

from visionlab.plots.rotation import (
    plot_angles,
    plot_errors,
    plot_rates,
    plot_votes,
    votes_around,
)
from visionlab.rotation.lines import Grid, lines_from_plane
from visionlab.rotation.trajectory import Trajectory
from visionlab.rotation.voting import vote_numpy


@pytest.fixture
def chain() -> Trajectory:
    steps = np.random.default_rng(0).normal(size=(40, 3)) * 0.01
    steps[20] = np.nan
    made = Trajectory.from_steps(steps, np.arange(41) / 25)
    status = list(made.columns["status"])
    status[5], status[30] = "duplicate", "ambiguous"
    return Trajectory(made.frames, made.times, made.quaternions, {"status": status})


@pytest.mark.parametrize("plot", [plot_rates, plot_angles])
def test_time_plots_have_units_and_a_legend(plot, chain) -> None:
    figure = plot({"estimate": chain, "ground truth": chain})
    assert "deg" in figure._supylabel.get_text()
    assert figure.axes[-1].get_xlabel() == "time, s"
    names = {text.get_text() for text in figure.legends[0].get_texts()}
    assert names == {"estimate", "ground truth", "cut", "repeated picture", "doubtful (status)"}


def test_plotted_rates_are_the_rates(chain) -> None:
    line = plot_rates(chain).axes[1].get_lines()[0]
    expected = np.degrees(chain.rates[:, 1])
    assert line.get_ydata() == pytest.approx(expected, nan_ok=True)
    assert np.isnan(line.get_ydata()[20])  # a gap at the cut


def test_error_plot_names_median_and_mean() -> None:
    figure = plot_errors({"ours": [0.01, 0.02, 0.03], "zero": [0.0, 1.0, 2.0]})
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts[0] == "ours: median 0.0200, mean 0.0200 deg"
    assert {axes.get_xlabel() for axes in figure.axes} == {"error per frame, deg"}


def test_votes_around_the_winner_are_the_votes() -> None:
    rng = np.random.default_rng(1)
    plane = rng.uniform(-0.4, 0.4, (300, 2))
    grid = Grid(2e-3, 41)
    moved = plane + [0.01, -0.004] + rng.normal(size=(300, 2)) * 5e-4
    lines = lines_from_plane(plane, moved, grid=grid)
    winner = vote_numpy(lines, np.ones(300, np.uint32), bins=grid.bins)
    cell, votes = int(winner[0]), int(winner[1])
    place = np.unravel_index(cell, (41, 41, 41))
    cube = votes_around(lines, bins=41, winner=place, reach=6)
    assert cube[6, 6, 6] == votes == cube.max()
    figure = plot_votes(lines, bins=41, bin_size=2e-3, cell=cell, reach=6)
    assert len(figure.axes) == 4
    assert "votes per cell" in figure.axes[3].get_ylabel()
