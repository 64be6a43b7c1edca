"""Scales of a noise level: the identity at first, and never a negative head."""

import pytest
import torch

from visionlab.backbones.noise_scales import NoiseScales

SIGMA = torch.tensor([0.01, 0.05, 0.3])


def test_starts_as_the_identity():
    for scale, shift, head in NoiseScales((0.01, 0.3), (4, 2))(SIGMA):
        assert torch.equal(scale, torch.ones_like(scale))
        assert torch.equal(shift, torch.zeros_like(shift))
        assert torch.equal(head, torch.ones_like(head))


def test_heads_stay_positive_and_every_layer_has_its_channels():
    torch.manual_seed(0)
    scales = NoiseScales((0.01, 0.3), (4, 2, 3))
    torch.nn.init.normal_(scales.out.weight, std=2.0)
    triples = scales(SIGMA)
    assert [[t.shape for t in triple] for triple in triples] == [
        [(3, channels)] * 3 for channels in (4, 2, 3)
    ]
    assert all(bool((head > 0).all()) for _, _, head in triples)
    assert not torch.equal(triples[0][0][0], triples[0][0][2])  # the level counts


@pytest.mark.parametrize("noise_range", [(0.0, 0.1), (0.3, 0.1), (0.1, 0.1)])
def test_ranges_that_are_none(noise_range):
    with pytest.raises(ValueError, match="0 < low < high"):
        NoiseScales(noise_range, (2,))
