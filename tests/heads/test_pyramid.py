import pytest
import torch

from visionlab.heads.pyramid import SimpleFeaturePyramid


@pytest.mark.parametrize(("side", "sides"), [(14, [56, 28, 14, 7]), (5, [20, 10, 5, 3])])
def test_levels_have_their_resolution(side, sides):
    pyramid = SimpleFeaturePyramid(16, 8)
    levels = pyramid(torch.randn(2, 16, side, side))
    assert [tuple(level.shape) for level in levels.values()] == [(2, 8, s, s) for s in sides]


def test_levels_of_other_scales():
    levels = SimpleFeaturePyramid(16, 8, scales=[2, 0.25])(torch.randn(1, 16, 8, 4))
    assert [tuple(v.shape[2:]) for v in levels.values()] == [(16, 8), (2, 1)]


def test_every_parameter_gets_a_gradient():
    pyramid = SimpleFeaturePyramid(16, 8)
    sum(v.square().sum() for v in pyramid(torch.randn(1, 16, 8, 8)).values()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in pyramid.parameters())


@pytest.mark.parametrize("scales", [[], [1, 2], [2, 2]])
def test_scales_out_of_order(scales):
    with pytest.raises(ValueError, match="from the finest to the coarsest"):
        SimpleFeaturePyramid(16, 8, scales=scales)


@pytest.mark.parametrize("scale", [3, -1])
def test_scale_is_a_power_of_two(scale):
    with pytest.raises(ValueError, match="power of two"):
        SimpleFeaturePyramid(16, 8, scales=[scale])
