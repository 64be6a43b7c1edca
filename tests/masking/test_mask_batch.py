"""Masks in all their forms, against the usual two sorts."""

import pytest
import torch

from visionlab.masking import MaskBatch


def test_forms_agree_with_two_sorts():
    scores = torch.rand(5, 24, generator=torch.Generator().manual_seed(0))
    masks = MaskBatch.from_scores(scores, 7, (4, 6))
    shuffled = scores.argsort(1, descending=True)  # MAE's way
    restore = shuffled.argsort(1)
    assert torch.equal(masks.mask, restore >= 7)
    assert torch.equal(masks.ids_keep, shuffled[:, :7].sort(1).values)
    assert torch.equal(masks.ids_mask, shuffled[:, 7:].sort(1).values)
    assert masks.ids_keep.dtype == masks.ids_restore.dtype == torch.int64


def test_restore_puts_tokens_back():
    masks = MaskBatch.from_scores(torch.rand(3, 35), 9, (5, 7))
    tokens = torch.arange(3 * 35).view(3, 35)
    visible, hidden = tokens.gather(1, masks.ids_keep), tokens.gather(1, masks.ids_mask)
    assert torch.equal(torch.cat([visible, hidden], 1).gather(1, masks.ids_restore), tokens)
    assert torch.equal(masks.visible.flatten(1), ~masks.mask)
    assert masks.visible.shape == (3, 5, 7)


def test_ties_keep_the_exact_number():
    masks = MaskBatch.from_scores(torch.zeros(4, 30), 11, (5, 6))
    assert ((~masks.mask).sum(1) == 11).all()


def test_from_hidden_takes_a_mask_and_checks_the_count():
    hidden = torch.tensor([[True, False, True, True], [False, True, True, True]])
    masks = MaskBatch.from_hidden(hidden, (2, 2))
    assert masks.keep == 1
    assert masks.ids_keep.tolist() == [[1], [0]]
    with pytest.raises(ValueError, match="same number of patches in every mask, got 0 to 1"):
        MaskBatch.from_hidden(torch.tensor([[True, False], [True, True]]), (1, 2))
    with pytest.raises(ValueError, match=r"bool mask of shape \(B, 4\), got torch.float32"):
        MaskBatch.from_hidden(torch.zeros(2, 4), (2, 2))


def test_empty_batch_and_moving():
    masks = MaskBatch.from_scores(torch.rand(0, 6), 2, (2, 3))
    assert masks.ids_keep.shape == (0, 2)
    assert masks.ids_restore.shape == (0, 6)
    assert len(masks) == 0
    assert torch.equal(masks.to("cpu").mask, masks.mask)
