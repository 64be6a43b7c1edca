"""Mask pictures: drawn, saved whole, with their numbers beside them."""

import numpy as np
import pytest
import torch

from visionlab.masking import create_mask
from visionlab.plots.masks import plot_masks


def test_rows_and_saved_numbers(tmp_path):
    masks = {"green": create_mask("green", (8, 10)), "blocks": create_mask("block", (8, 10))}
    figure = plot_masks(masks, tmp_path / "new" / "masks.png", samples=60)
    assert (tmp_path / "new" / "masks.png").stat().st_size > 10_000
    saved = np.load(tmp_path / "new" / "masks.npz")
    assert saved["green_keep_rate"].shape == (8, 10)
    assert saved["green_keep_rate"].mean() == pytest.approx(0.25)
    assert saved["blocks_neighbour_rate"] > saved["green_neighbour_rate"]
    labels = [axis.get_ylabel() for axis in figure.axes if axis.get_ylabel()]
    assert [label.split("\n")[0] for label in labels] == ["green", "blocks"]
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["masks.npz", "masks.png"]


def test_masks_shown_are_drawn_by_the_key():
    mask = create_mask("red", (6, 6))
    figure = plot_masks({"red": mask}, samples=10, key=(3, 4))
    shown = np.asarray(figure.axes[2].images[0].get_array())
    assert (shown == mask(2, key=(3, 4)).visible[0].numpy()).all()


def test_schedules_and_scores():
    stages = [{"epoch": 0, "name": "red"}, {"epoch": 5, "name": "green"}]
    masks = {
        "schedule": create_mask("schedule", (6, 6), stages=stages),
        "score": create_mask("score", (6, 6), score_fn=lambda x: x.mean(1)),
    }
    figure = plot_masks(masks, samples=10, images=torch.randn(5, 3, 6, 6), epoch=7)
    line = figure.axes[0].lines[0].get_xydata()
    assert line[line[:, 1].argmax(), 0] == pytest.approx(0.197, abs=0.01)  # green by epoch 7


def test_nothing_to_plot():
    with pytest.raises(ValueError, match="no masks to plot"):
        plot_masks({})
