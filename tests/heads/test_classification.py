import pytest
import torch
from torch.nn import functional as F

from visionlab.heads.classification import LinearClassificationHead
from visionlab.heads.features import Features


def test_loss_is_the_sum_over_labelled_pictures(features):
    head = LinearClassificationHead(32, 5)
    outputs = head(features)
    loss = head.loss(outputs, {"label": torch.tensor([2, -1, 4])})
    expected = F.cross_entropy(outputs[[0, 2]], torch.tensor([2, 4]))
    assert loss.count == 2
    assert torch.allclose(loss.mean, expected)
    assert torch.allclose(head.predict(outputs).sum(1), torch.ones(3))


def test_mean_pooling_ignores_padding():
    tokens = torch.randn(1, 5, 8)
    padded = tokens.clone()
    padded[0, 3:] = 1e6  # the lower row of patches
    sizes = torch.tensor([[8, 16]])
    head = LinearClassificationHead(8, 3)
    first, second = (head(Features(t, (2, 2), (16, 16), sizes)) for t in (tokens, padded))
    assert torch.equal(first, second)


def test_token_pooling_reads_the_class_token(features):
    head = LinearClassificationHead(32, 5, pool="token")
    assert torch.equal(head(features), head.linear(features.tokens[:, 0]))


def test_wrong_arguments_are_named(features):
    with pytest.raises(ValueError, match="pool is 'token' or 'mean', got 'max'"):
        LinearClassificationHead(32, 5, pool="max")
    with pytest.raises(ValueError, match=r"label_smoothing must lie in \[0, 1\), got 2"):
        LinearClassificationHead(32, 5, label_smoothing=2.0)
    with pytest.raises(ValueError, match="built for features of width 16, the backbone gives 32"):
        LinearClassificationHead(16, 5)(features)
    without = Features(features.tokens[:, 1:], (4, 4), (32, 32), features.sizes)
    with pytest.raises(ValueError, match="needs a class token"):
        LinearClassificationHead(32, 5, pool="token")(without)
