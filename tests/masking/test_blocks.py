"""Block-wise and inverse block masks."""

import pytest
import torch

from visionlab.masking import create_mask, mask_statistics
from visionlab.masking.blocks import draw_block_size, draw_corner
from visionlab.masking.keys import GeneratorDraws

DRAWS = GeneratorDraws((0,), 400, torch.device("cpu"))


@pytest.mark.parametrize("grid", [(14, 14), (1, 30), (5, 40)])
def test_rectangles_fit_and_keep_area_and_aspect(grid):
    size = draw_block_size(DRAWS, 8, grid, (0.1, 0.3), 0.3)
    corner = draw_corner(DRAWS, size, grid)
    assert (size >= 1).all()
    assert (corner >= 0).all()
    assert (corner + size <= torch.tensor(grid)).all()
    if grid == (14, 14):
        share = size.prod(-1) / 196
        assert share.min() > 0.05
        assert share.max() < 0.36
        aspect = size[..., 0] / size[..., 1]
        assert aspect.min() >= 0.2  # .3, and the rounding to whole patches
        assert aspect.max() <= 5
        assert abs(aspect.log().mean()) < 0.05  # tall and wide ones alike
        assert (corner[size == 14] == 0).all()


def test_corners_reach_every_place():
    size = torch.full((400, 8, 2), 5)
    corner = draw_corner(DRAWS, size, (14, 14))
    assert set(corner[..., 0].unique().tolist()) == set(range(10))
    assert set(corner[..., 1].unique().tolist()) == set(range(10))


def test_rank_is_that_of_the_first_rectangle_that_covers():
    """Against loops over rectangles and patches."""
    mask = create_mask("block", (6, 9), blocks=3, area=(0.1, 0.2))
    cpu = torch.device("cpu")
    scores = mask.scores(GeneratorDraws((5,), 4, cpu)).view(4, 6, 9)
    draws = GeneratorDraws((5,), 4, cpu)
    size = draw_block_size(draws, 3, (6, 9), (0.1, 0.2), 0.3)
    corner = draw_corner(draws, size, (6, 9))
    for image in range(4):
        for row in range(6):
            for column in range(9):
                first = 3
                for b in reversed(range(3)):
                    (y, x), (h, w) = corner[image, b].tolist(), size[image, b].tolist()
                    if y <= row < y + h and x <= column < x + w:
                        first = b
                assert int(scores[image, row, column]) == first


def test_block_hides_blocks_and_inverse_keeps_them():
    hidden = mask_statistics(create_mask("block", (14, 14), 0.4), samples=500)
    kept = mask_statistics(create_mask("inverse_block", (14, 14), 0.75), samples=500)
    white = mask_statistics(create_mask("random", (14, 14), 0.75), samples=500)
    assert kept.neighbour_rate > 0.7 > 0.3 > white.neighbour_rate
    assert hidden.energy[0] > 4  # large regions: low frequencies


def test_inverse_is_the_complement_of_the_same_draw():
    block = create_mask("block", (14, 14), 0.25)(20, key=(3,)).mask
    inverse = create_mask("inverse_block", (14, 14), 0.75)(20, key=(3,)).mask
    assert torch.equal(block, ~inverse)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"area": (0.3, 0.1)}, "smallest <= largest"),
        ({"area": (0.0, 0.1)}, "0 < smallest"),
        ({"aspect": 0}, r"inside \(0, 1\], got 0"),
        ({"blocks": 0}, r"blocks lies in \[1, 62\], got 0"),
    ],
)
def test_refusals_are_sentences(options, message):
    with pytest.raises(ValueError, match=message):
        create_mask("block", (14, 14), **options)
