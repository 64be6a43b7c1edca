"""I-JEPA's context and targets."""

import pytest
import torch

from visionlab.masking import create_mask


@pytest.mark.parametrize("grid", [(14, 14), (7, 23), (16, 10), (1, 40)])
@pytest.mark.parametrize("ratio", [0.5, 0.75, 0.9])
def test_targets_are_blocks_that_the_context_never_meets(grid, ratio):
    mask = create_mask("multiblock", grid, ratio)
    for step in range(20):
        masks = mask(6, key=(0, 0, step))
        assert masks.ids_keep.shape == (6, mask.keep)
        assert masks.targets.shape[:2] == (6, 4)
        assert masks.mask.gather(1, masks.targets.flatten(1)).all()  # all hidden
        rows, columns = masks.targets // grid[1], masks.targets % grid[1]
        height = rows.amax(2) - rows.amin(2) + 1
        width = columns.amax(2) - columns.amin(2) + 1
        assert (height * width == masks.targets.shape[2]).all()  # full rectangles
        assert ((rows >= 0) & (rows < grid[0])).all()


def test_sizes_follow_the_paper():
    mask = create_mask("multiblock", (14, 14), 0.75)
    shapes = set()
    for step in range(60):
        targets = mask(1, key=(0, 0, step)).targets[0, 0]
        height = len((targets // 14).unique())
        shapes.add((height, len(targets) // height))
    areas = [h * w for h, w in shapes]
    assert min(areas) >= 0.12 * 196
    assert max(areas) <= 147 // 4  # 4 targets fit into the hidden patches
    assert {h > w for h, w in shapes} == {True, False}


def test_context_lies_in_its_block():
    mask = create_mask("multiblock", (20, 20), 0.9, context_scale=(0.3, 0.3), num_targets=1)
    visible = mask(50, key=(0,)).visible
    rows, columns = visible.any(2), visible.any(1)
    for line in (rows, columns):
        place = torch.arange(20)
        first = torch.where(line, place, 99).amin(1)
        last = torch.where(line, place, -1).amax(1)
        assert (last - first + 1 <= 11).float().mean() > 0.9  # sqrt(.3) * 20 = 11


def test_by_index_one_size_per_epoch():
    mask = create_mask("multiblock", (14, 14))
    whole = mask(5, key=(0, 1), index=torch.arange(5))
    part = mask(2, key=(0, 1), index=torch.arange(3, 5))
    assert torch.equal(whole.targets[3:], part.targets)
    assert torch.equal(whole.mask[3:], part.mask)
    assert torch.equal(whole.to("cpu").targets, whole.targets)


@pytest.mark.parametrize(
    ("grid", "options", "message"),
    [
        ((14, 14), {"target_scale": (0.3, 0.2)}, "target_scale holds two shares"),
        ((14, 14), {"context_scale": (0.0, 0.2)}, "context_scale holds two shares"),
        ((14, 14), {"target_aspect": (2, 1)}, "target_aspect holds"),
        ((14, 14), {"num_targets": 0}, "at least one target block is needed"),
        ((2, 2), {"num_targets": 9}, "9 targets do not fit into the 3 hidden patches of a 2x2"),
    ],
)
def test_refusals_are_sentences(grid, options, message):
    with pytest.raises(ValueError, match=message):
        create_mask("multiblock", grid, **options)
