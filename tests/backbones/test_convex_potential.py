"""The potential worked by hand; its pooling and the adjoint."""

import pytest
import torch

from visionlab.backbones.convex import ConvexConv


def test_values_by_hand():
    """One layer, one channel, kernel 1: psi(x) = h sum s(w x + b) + alpha ||x||^2."""
    psi = ConvexConv(1, 1, strides=(1,), kernel_size=1, beta=2.0, alpha=0.5).double()
    with torch.no_grad():
        psi.inputs[0].weight.fill_(3.0)
        psi.inputs[0].bias.fill_(-1.0)
        psi.heads["0"].weight.fill_(0.25)
    x = torch.tensor([[[[1.0, 0.0]]]], dtype=torch.float64)
    s = [(2 + 5**0.5) / 2, (-1 + 2**0.5) / 2]  # (a + sqrt(a^2 + 1)) / 2 at a = 2, -1
    assert psi.value(x).item() == pytest.approx(0.25 * sum(s) + 0.5)
    slopes = [(1 + 2 / 5**0.5) / 2, (1 - 1 / 2**0.5) / 2]
    expected = [0.75 * slopes[0] + 1.0, 0.75 * slopes[1]]
    assert psi.gradient(x).flatten().tolist() == pytest.approx(expected)


def test_centre_pooling_is_bilinear_resizing_and_unpooling_its_adjoint():
    for factor in (2, 4, 8):
        for pooling in ("centre", "mean"):
            psi = ConvexConv(1, 2, strides=(1,)).double()
            psi.pooling = pooling
            x = torch.rand(2, 3, 32, 16, dtype=torch.float64)
            pooled = psi._pool(x, factor)
            if pooling == "centre":
                expected = torch.nn.functional.interpolate(
                    x, (32 // factor, 16 // factor), mode="bilinear", align_corners=False
                )
            else:
                expected = torch.nn.functional.avg_pool2d(x, factor)
            assert torch.allclose(pooled, expected)
            g = torch.rand_like(pooled)
            assert torch.allclose((pooled * g).sum(), (x * psi._unpool(g, factor)).sum())
