"""Grid-wise and unit masks."""

import pytest
import torch

from visionlab.masking import create_mask
from visionlab.masking.grids import bayer


def test_bayer_is_the_textbook_matrix():
    assert bayer(2).tolist() == [[0, 2], [3, 1]]
    assert bayer(3).tolist() == [[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]]
    assert sorted(bayer(16).flatten().tolist()) == list(range(256))


def test_one_patch_in_each_2x2_cell():
    visible = create_mask("grid", (14, 16), 0.75)(40, key=(0,)).visible
    cells = visible.view(40, 7, 2, 8, 2).sum((2, 4))
    assert (cells == 1).all()
    first = visible[:, :2, :2].flatten(1).double().argmax(1)
    assert set(first.tolist()) == {0, 1, 2, 3}  # a random offset
    assert (visible == visible[:, :2, :2].repeat(1, 7, 8)).all()  # a lattice


def test_odd_grids_stay_regular():
    visible = create_mask("grid", (7, 7), 0.75)(100, key=(0,)).visible
    assert (visible.sum((1, 2)) == 12).all()
    pairs = (visible[:, 1:] & visible[:, :-1]).sum() + (
        visible[:, :, 1:] & visible[:, :, :-1]
    ).sum()
    assert pairs == 0


def test_units_are_hidden_whole():
    masks = create_mask("unit", (14, 14), 0.75, unit=(2, 2))(30, key=(0,))
    cells = masks.visible.view(30, 7, 2, 7, 2).sum((2, 4))
    partial = ((cells > 0) & (cells < 4)).sum((1, 2))
    assert (partial == 1).all()  # 49 = 12 * 4 + 1: one unit is cut
    masks = create_mask("unit", (16, 16), 0.75, unit=(4, 2))(30, key=(0,))
    cells = masks.visible.view(30, 4, 4, 8, 2).sum((2, 4))
    assert set(cells.unique().tolist()) == {0, 8}


def test_units_by_another_strategy():
    green = create_mask("green")
    masks = create_mask("unit", (32, 32), 0.75, unit=(2, 2), base=green)(64, key=(0,))
    coarse = masks.visible[:, ::2, ::2].double()
    pairs = (coarse[:, 1:] * coarse[:, :-1]).sum() + (coarse[:, :, 1:] * coarse[:, :, :-1]).sum()
    assert pairs / (2 * coarse.sum()) > 0.4  # random units: .23


def test_scores_are_passed_to_a_base_that_reads_images():
    bright = create_mask("score", score_fn=lambda x: x.mean(1).flatten(1), weight=1.0)
    mask = create_mask("unit", (4, 4), 0.75, unit=(2, 2), base=bright)
    assert mask.needs_images
    images = torch.tensor([[0.0, 1.0], [2.0, 3.0]]).expand(5, 1, 2, 2)
    masks = mask(5, key=(0,), images=images)
    assert masks.visible[:, 2:, 2:].all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unit": (0, 2)}, "a unit is .* at least"),
        ({"unit": (9, 9)}, "covers the whole grid"),
        ({"base": "green"}, "base is a mask strategy such as"),
    ],
)
def test_refusals_are_sentences(options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        create_mask("unit", (8, 8), **options)
