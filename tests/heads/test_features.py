import pytest
import torch

from visionlab.heads.features import Features, LossSum, check_classes, valid_patches


def test_map_puts_tokens_in_row_order():
    tokens = torch.arange(2 * 7.0).reshape(1, 7, 2)  # one class token, then 2 x 3 patches
    features = Features(tokens, (2, 3), (16, 24), torch.tensor([[16, 24]]))
    assert features.prefix == 1
    assert features.map.shape == (1, 2, 2, 3)
    assert torch.equal(features.map[0, :, 1, 2], tokens[0, 6])


def test_valid_patches_leave_out_padding():
    valid = valid_patches(torch.tensor([[9, 24], [16, 8]]), (2, 3), (16, 24))
    assert valid.tolist() == [
        [[True, True, True], [True, True, True]],
        [[True, False, False], [True, False, False]],
    ]


def test_mean_of_nothing_is_zero():
    assert LossSum(torch.tensor(0.0), torch.tensor(0.0)).mean == 0
    assert LossSum(torch.tensor(6.0), torch.tensor(3.0)).mean == 2


def test_a_head_needs_classes():
    with pytest.raises(ValueError, match="num_classes >= 1, got 0"):
        check_classes(0)
