"""What holds for every strategy: exact counts, keyed draws, one interface."""

import copy
import json
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from visionlab.masking import MASKS, create_mask
from visionlab.masking.base import keep_count

NAMES = MASKS.names()
GRIDS = [(1, 24), (24, 1), (7, 23), (10, 18), (14, 14), (14, 24)]
RATIOS = [0.25, 0.6, 0.75, 0.9]


@pytest.mark.parametrize("name", NAMES)
def test_exact_count_for_every_grid_and_ratio(name, make_mask, draw):
    for grid in GRIDS:
        for ratio in RATIOS:
            mask = make_mask(name, grid, ratio)
            patches = grid[0] * grid[1]
            for masks in (
                draw(mask, 3, key=(0, 1, 2)),
                draw(mask, 3, key=(0, 1), index=[4, 9, 5]),
            ):
                assert masks.ids_keep.shape == (3, keep_count(patches, ratio))
                assert masks.mask.dtype == torch.bool
                assert ((~masks.mask).sum(1) == mask.keep).all()
                tokens = torch.cat([masks.ids_keep, masks.ids_mask], 1)
                assert torch.equal(tokens.sort(1).values, torch.arange(patches).expand(3, -1))
                assert torch.equal(
                    tokens.gather(1, masks.ids_restore), torch.arange(patches).expand(3, -1)
                )


@pytest.mark.parametrize("name", NAMES)
def test_exact_count_on_64x64(name, make_mask, draw):
    masks = draw(make_mask(name, (64, 64)), 2, key=(0, 0, 0))
    assert ((~masks.mask).sum(1) == 1024).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_draw_is_a_function_of_its_key(name, make_mask, draw):
    mask = make_mask(name, (14, 14))
    state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = draw(mask, 8, key=(0, 1, 2)).mask
    assert torch.equal(first, draw(make_mask(name, (14, 14)), 8, key=(0, 1, 2)).mask)
    for other in [(1, 1, 2), (0, 2, 2), (0, 1, 3), (0, 2, 1)]:
        assert not torch.equal(first, draw(mask, 8, key=other).mask)
    assert len({tuple(row.tolist()) for row in first}) > 1  # images differ within a batch
    assert torch.equal(state[0], torch.get_rng_state())
    assert (state[1] == np.random.get_state()[1]).all()  # noqa: NPY002


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"score"}))
def test_by_index_masks_do_not_depend_on_the_split(name, make_mask, draw):
    mask = make_mask(name, (7, 23))
    index = torch.tensor([3, 11, 5, 0, 2**40, 8, 1])
    whole = draw(mask, 7, key=(0, 4), index=index)
    parts = [draw(mask, len(p), key=(0, 4), index=p).mask for p in index.split([1, 2, 4])]
    assert torch.equal(whole.mask, torch.cat(parts))
    assert torch.equal(whole.mask[3], draw(mask, 1, key=(0, 4), index=[0]).mask[0])
    assert not torch.equal(whole.mask, draw(mask, 7, key=(0, 5), index=index).mask)


@pytest.mark.gpu
@pytest.mark.parametrize("name", sorted(set(NAMES) - {"score"}))
def test_by_index_masks_are_equal_on_cpu_and_gpu(name, make_mask, draw):
    mask = make_mask(name, (14, 14))
    cpu = draw(mask, 64, key=(0, 4), index=torch.arange(64))
    gpu = draw(mask, 64, key=(0, 4), index=torch.arange(64), device="cuda")
    assert torch.equal(cpu.mask, gpu.mask.cpu())


@pytest.mark.parametrize("name", NAMES)
def test_description_is_plain_and_complete(name, make_mask):
    mask = make_mask(name, (14, 14))
    record = json.loads(json.dumps(mask.describe()))
    assert record["grid"] == [14, 14]
    assert record["keep"] == 49


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"color", "score"}))  # lambdas do not pickle
def test_copies_draw_the_same(name, make_mask, draw):
    mask = make_mask(name, (14, 14))
    first = draw(mask, 4, key=(3,)).mask
    for other in (copy.deepcopy(mask), pickle.loads(pickle.dumps(mask))):
        assert torch.equal(first, draw(other, 4, key=(3,)).mask)


@pytest.mark.parametrize("name", NAMES)
def test_another_grid_and_ratio_leave_the_original_alone(name, make_mask, draw):
    mask = make_mask(name, None)
    with pytest.raises(ValueError, match="has no grid yet"):
        mask(2, key=0, epoch=0)
    bound = mask.with_grid((8, 9))
    other = bound.with_ratio(0.5).with_grid((10, 12))
    assert (mask.grid, bound.grid, other.grid) == (None, (8, 9), (10, 12))
    assert (bound.keep, other.keep) == (18, 60)
    assert draw(other, 2, key=0).ids_keep.shape == (2, 60)
    assert draw(bound, 2, key=0).ids_keep.shape == (2, 18)


def test_keep_count_follows_the_anchors_where_they_are_exact():
    assert keep_count(196, 0.75) == 49
    assert keep_count(100, 0.9) == 10  # int(100 * (1 - .9)) is 9
    assert keep_count(6, 0.75) == 1
    assert keep_count(10, 0.75) == 2
    for side in range(2, 40):
        patches = 4 * side
        assert keep_count(patches, 0.75) == int(patches * 0.25)


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(["random", "green", "block", "grid", "unit", "multiblock"]),
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    ratio=st.floats(0.01, 0.99),
    key=st.lists(st.integers(-(2**70), 2**70), min_size=1, max_size=4),
)
def test_any_grid_and_ratio_gives_exact_masks_or_one_sentence(name, height, width, ratio, key):
    try:
        mask = create_mask(name, (height, width), ratio)
    except ValueError as error:
        sentence = str(error)
        if not any(s in sentence for s in ("leaves no patch", "covers the whole", "do not fit")):
            raise
        return
    masks = mask(2, key=tuple(key))
    assert ((~masks.mask).sum(1) == keep_count(height * width, ratio)).all()


@pytest.mark.parametrize("ratio", [0, 1, -0.5, 1.2, float("nan")])
def test_ratio_outside_the_open_interval(ratio):
    with pytest.raises(ValueError, match=r"hidden share, inside \(0, 1\), got"):
        create_mask("green", (14, 14), ratio)


@pytest.mark.parametrize("ratio", ["0.75", None, True])
def test_ratio_of_another_type(ratio):
    with pytest.raises(TypeError, match="the mask ratio is a number"):
        create_mask("green", (14, 14), ratio)


def test_ratio_that_leaves_no_patch():
    with pytest.raises(ValueError, match=r"ratio 0.99 leaves no patch visible of 4; use a smaller"):
        create_mask("green", (2, 2), 0.99)
    with pytest.raises(ValueError, match=r"ratio 0.01 leaves no patch hidden of 4; use a larger"):
        create_mask("green", (2, 2), 0.01)
    with pytest.raises(ValueError, match="leaves no patch"):
        create_mask("random", (1, 1), 0.5)


@pytest.mark.parametrize("grid", [14, (14,), (14, 14, 3), (14.5, 14), "14", (None, 3)])
def test_grid_of_another_form(grid):
    with pytest.raises(TypeError, match=r"a grid is \(rows, columns\)"):
        create_mask("green", grid)


def test_grid_without_patches():
    with pytest.raises(ValueError, match="at least one row and one column"):
        create_mask("green", (0, 14))


@pytest.mark.parametrize("batch_size", [-1, 2.0, True, "4"])
def test_batch_size(batch_size):
    with pytest.raises(ValueError, match="batch size is a number of masks >= 0"):
        create_mask("random", (4, 4))(batch_size, key=0)


@pytest.mark.parametrize(
    "index", [torch.arange(3), torch.rand(2), [True, False], torch.zeros(2, 1, dtype=torch.long)]
)
def test_index_of_another_form(index):
    with pytest.raises(ValueError, match=r"index holds one integer per mask, shape \(2,\)"):
        create_mask("random", (4, 4))(2, key=0, index=index)
