"""Activations: convex, increasing, with the slope and curvature that they claim."""

import pytest
import torch

from visionlab.backbones.smooth import SmoothActivation, smooth


@pytest.mark.parametrize("name", ["softplus", "squareplus"])
class TestActivation:
    def test_slope_and_derivatives(self, name):
        a = torch.linspace(-0.3, 0.3, 41, dtype=torch.float64, requires_grad=True)

        def both(a):
            return SmoothActivation.apply(a, 30.0, name)

        value, slope = both(a)
        (expected,) = torch.autograd.grad(value.sum(), a)
        assert torch.allclose(slope, expected)
        assert torch.autograd.gradcheck(both, a, check_forward_ad=True)
        assert torch.autograd.gradcheck(lambda a: both(a)[1], a, check_forward_ad=True)

    def test_convex_increasing_and_close_to_relu(self, name):
        a = torch.linspace(-3, 3, 601, dtype=torch.float64)
        value, slope = SmoothActivation.apply(a, 30.0, name)
        assert (slope.diff() >= 0).all()
        assert (slope >= 0).all()
        assert (slope <= 1).all()
        assert (value - a.relu()).max() <= 0.0334

    def test_curvature_at_zero(self, name):
        a = torch.zeros(1, dtype=torch.float64, requires_grad=True)
        SmoothActivation.apply(a, 30.0, name)[1].backward()
        assert a.grad.item() == pytest.approx(30.0 / 4)

    def test_what_the_compiler_traces_is_its_twin(self, name, monkeypatch):
        a = torch.linspace(-2, 2, 101, dtype=torch.float64)
        expected = smooth(a, 30.0, name)
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
        for found, wanted in zip(smooth(a, 30.0, name), expected, strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-14)
