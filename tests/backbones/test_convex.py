"""Convex networks of every kind: gradient, convexity, symmetry, training."""

import pytest
import torch

from visionlab.backbones.convex import ConvexConv, ConvexMLP

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:FutureWarning")


KINDS = {
    "plain": {},
    "energy": {"first": "energy"},
    "energy, noise level": {
        "first": "energy",
        "noise_range": (0.01, 0.3),
        "kernel_size": (5, 3, 3, 3, 3, 3),
    },
    "unshuffled": {"unshuffle": 2, "strides": (1, 2, 1)},
    "softplus, last head": {"activation": "softplus", "heads": "last"},
    "widths, reparametrised": {
        "hidden": (3, 5, 4),
        "strides": (1, 2, 2),
        "constraint": "softplus",
        "in_channels": 3,
    },
    "signal": {"dim": 1},
    "signal, unshuffled": {"dim": 1, "unshuffle": 3, "strides": (2,)},
    "noise level": {"noise_range": (0.01, 0.3), "kernel_size": 5},
}


def make(kind: str):
    torch.manual_seed(0)
    options = {"hidden": 4, "alpha": 0.01, "beta": 30.0, **KINDS[kind]}
    psi = ConvexConv(**options).double()
    sigma = None
    if psi.noise is not None:
        torch.nn.init.normal_(psi.noise.out.weight, std=0.2)
        sigma = torch.tensor([0.02, 0.2], dtype=torch.float64)
    size = (37,) if psi.dim == 1 else (37, 53)
    return psi, torch.rand(2, options.get("in_channels", 1), *size, dtype=torch.float64), sigma


@pytest.mark.parametrize("kind", KINDS)
class TestEachKind:
    def test_explicit_gradient_is_autograds(self, kind):
        psi, x, sigma = make(kind)
        x.requires_grad_()
        (expected,) = torch.autograd.grad(psi.value(x, sigma).sum(), x)
        value, gradient = psi.value_and_gradient(x, sigma)
        for found in (gradient, psi.gradient(x, sigma)):
            assert torch.linalg.norm(found - expected) <= 1e-8 * torch.linalg.norm(expected)
        assert torch.allclose(value, psi.value(x, sigma), rtol=1e-12)
        psi, x = psi.float(), x.detach().float()
        sigma = None if sigma is None else sigma.float()
        found = psi.gradient(x, sigma)
        assert torch.linalg.norm(found - expected) <= 1e-5 * torch.linalg.norm(expected)

    def test_potential_is_strongly_convex_along_lines(self, kind):
        psi, a, sigma = make(kind)
        b = a + torch.randn(a.shape, generator=torch.Generator().manual_seed(1)).to(a)
        for t in (0.25, 0.5, 0.9):
            between = psi.value((1 - t) * a + t * b, sigma)
            chord = (1 - t) * psi.value(a, sigma) + t * psi.value(b, sigma)
            gap = 0.5 * psi.curvature * t * (1 - t) * (a - b).flatten(1).square().sum(1)
            assert (between <= chord - gap + 1e-9).all()

    def test_training_needs_first_order_autograd_only(self, kind):
        psi, x, sigma = make(kind)
        weight = psi.hidden[0].weight if len(psi.hidden) else psi.inputs[0].weight
        psi.gradient(x, sigma).square().sum().backward()
        # against a finite difference in one direction
        direction = torch.randn(weight.shape, generator=torch.Generator().manual_seed(2)).to(x)
        step = 1e-6
        with torch.no_grad():
            values = []
            for sign in (1, -1):
                weight += sign * step * direction
                values.append(psi.gradient(x, sigma).square().sum())
                weight -= sign * step * direction
        slope = (values[0] - values[1]) / (2 * step)
        assert torch.allclose((weight.grad * direction).sum(), slope, rtol=1e-5)

    def test_jacobian_is_symmetric(self, kind):
        psi, x, sigma = make(kind)
        u = torch.randn(x.shape, generator=torch.Generator().manual_seed(3)).to(x)
        _, forward = torch.func.jvp(lambda v: psi.gradient(v, sigma), (x,), (u,))
        (reverse,) = torch.func.vjp(lambda v: psi.gradient(v, sigma), x)[1](u)
        assert torch.linalg.norm(forward - reverse) <= 1e-10 * torch.linalg.norm(forward)


def test_mlp_of_vectors():
    torch.manual_seed(0)
    psi = ConvexMLP(3, 6, depth=2).double()
    with torch.no_grad():
        psi.linear.copy_(torch.randn(3))
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(psi.value(x).sum(), x)
    assert torch.allclose(psi.gradient(x), expected, rtol=1e-10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activation": "relu"}, "activation is one of"),
        ({"dim": 3}, "dim is 1"),
        ({"kernel_size": 4}, "kernel_size must be odd and positive, got 4"),
        ({"strides": ()}, "at least 1"),
        ({"hidden": (3, 4)}, "hidden needs one number or one per stride: 6, got 2"),
        ({"kernel_size": (3, 3)}, "kernel_size needs one number or one per stride: 6, got 2"),
        ({"first": "square"}, "first is .same. or .energy., got .square."),
        ({"beta": 0.0}, "beta must be > 0"),
        ({"alpha": float("nan")}, "alpha >= 0, got beta=100.0, alpha=nan"),
        ({"heads": "first"}, "heads is 'all' or 'last', got 'first'"),
        ({"noise_range": (0.3, 0.1)}, "0 < low < high"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        ConvexConv(**options)


def test_a_stack_needs_layers_and_widths():
    for options in ({"hidden": 0}, {"depth": -1}, {"in_channels": 0}):
        with pytest.raises(ValueError, match="the number of layers must be at least 1"):
            ConvexMLP(**options)
