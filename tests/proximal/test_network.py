import copy

import pytest
import torch
from torch import nn

from visionlab.backbones.convex import ConvexMLP
from visionlab.proximal import LearnedProximalNetwork, ProximalNetwork

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:FutureWarning")


def small(**options):
    torch.manual_seed(0)
    return LearnedProximalNetwork(
        **{"in_channels": 1, "hidden": 4, "strides": (1, 2, 2), "alpha": 0.01, **options}
    )


def conditioned():
    net = small(noise_level=(0.01, 0.2), conditioned=True)
    nn.init.normal_(net.backbone.noise.out.weight, std=0.2)
    return net


@pytest.mark.parametrize("size", [(16, 16), (37, 53), (4, 129)])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_size_and_channel_count_is_an_exact_gradient(size, channels):
    net = small(in_channels=channels).double()
    v = torch.rand(2, channels, *size, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(net.potential(v).sum(), v)
    f = net(v)
    assert f.shape == v.shape
    assert torch.linalg.norm(f - expected) <= 1e-8 * torch.linalg.norm(expected)
    u = torch.randn(v.shape, generator=torch.Generator().manual_seed(1)).to(v)
    _, forward = torch.func.jvp(net, (v.detach(),), (u,))
    (reverse,) = torch.func.vjp(net, v.detach())[1](u)
    assert torch.linalg.norm(forward - reverse) <= 1e-10 * torch.linalg.norm(forward)


def test_an_image_does_not_depend_on_its_neighbours():
    for net in (small(), conditioned()):
        f = net.at(0.05) if net.conditioned else net
        v = torch.rand(5, 1, 20, 24)
        alone = torch.cat([f(v[i : i + 1]) for i in range(5)])
        assert torch.linalg.norm(f(v) - alone) <= 1e-6 * torch.linalg.norm(alone)
        value = torch.cat([f.potential(v[i : i + 1]) for i in range(5)])
        assert torch.allclose(f.potential(v), value, rtol=1e-6)


def test_inference_builds_no_graph_and_leaves_the_input_alone():
    net, v = small(), torch.rand(1, 1, 16, 16)
    before = v.clone()
    with torch.inference_mode():
        f = net(v)
    assert not f.requires_grad
    assert torch.equal(v, before)
    assert not v.requires_grad
    assert torch.equal(net.value_and_prox(v)[1].detach(), f.clone())


def test_prior_of_output_is_the_formula_at_the_known_inverse():
    net, v = small().double(), torch.rand(3, 1, 12, 12, dtype=torch.float64)
    f, prior = net.prior_of_output(v)
    dot = (v * f).flatten(1).sum(1)
    assert torch.allclose(prior, dot - 0.5 * f.flatten(1).square().sum(1) - net.potential(v))
    # psi* is a supremum: no other point gives more
    for other in (f, v + 0.1, torch.rand_like(v)):
        less = (other * f).flatten(1).sum(1) - 0.5 * f.flatten(1).square().sum(1)
        assert (less - net.potential(other) <= prior + 1e-9).all()


def test_f_minimises_its_proximal_objective():
    """f(v) = argmin 1/2 ||x - v||^2 + R(x) against outputs f(w), where R needs no inversion."""
    net, v = small().double(), torch.rand(1, 1, 12, 12, dtype=torch.float64)
    x, prior = net.prior_of_output(v)
    best = 0.5 * (x - v).square().sum() + prior
    for seed in range(8):
        noise = torch.randn(v.shape, generator=torch.Generator().manual_seed(seed)).to(v)
        for scale in (1e-3, 0.1, 1.0):
            other, prior = net.prior_of_output(v + scale * noise)
            assert 0.5 * (other - v).square().sum() + prior >= best - 1e-9


class TestRelaxed:
    def test_is_the_gradient_of_its_potential(self):
        net = small(noise_level=0.1).double().relaxed(0.3)
        v = torch.rand(2, 1, 12, 12, dtype=torch.float64, requires_grad=True)
        (expected,) = torch.autograd.grad(net.potential(v).sum(), v)
        assert torch.allclose(net(v), expected)
        assert torch.allclose(net.value_and_prox(v)[1], expected)
        assert torch.allclose(net(v), 0.7 * v + 0.3 * net.base(v))

    def test_states_curvature_and_noise(self):
        net = small(noise_level=0.1)
        assert net.relaxed(0.25).noise_level == pytest.approx(0.05)
        assert net.relaxed(0.25).curvature == pytest.approx(0.75 + 0.25 * 0.02)
        assert small().relaxed(0.5).noise_level is None

    @pytest.mark.parametrize("tau", [0.0, 1.5, -0.1])
    def test_refuses_other_weights(self, tau):
        with pytest.raises(ValueError, match=r"tau must lie in \(0, 1\]"):
            small().relaxed(tau)


class TestNoiseLevel:
    def test_one_network_serves_a_range(self):
        net, v = conditioned(), torch.rand(2, 1, 12, 12)
        both = net(v, torch.tensor([0.02, 0.1]))
        assert torch.allclose(both[:1], net(v[:1], 0.02), atol=1e-6)
        assert torch.allclose(both[1:], net.at(0.1)(v[1:]), atol=1e-6)
        assert not torch.allclose(both[:1], net(v[:1], 0.1))
        assert net.at(0.05).noise_level == 0.05
        value, f = net.at(0.05).value_and_prox(v)
        assert torch.equal(value, net.at(0.05).potential(v))
        assert torch.equal(f, net(v, 0.05))

    def test_blind_network_over_a_range(self):
        net = small(noise_level=(0.01, 0.2))
        v = torch.rand(1, 1, 12, 12)
        assert torch.equal(net.at(0.05)(v), net(v))
        assert net.at(0.05).noise_level == 0.05
        assert net.noise_level is None

    def test_untrained_levels_are_refused(self):
        with pytest.raises(ValueError, match=r"range trained on, 0\.01 to 0\.2, got 0\.3"):
            conditioned().at(0.3)
        with pytest.raises(ValueError, match=r"range trained on, 0\.01 to 0\.2, got 0\.3"):
            conditioned()(torch.rand(1, 1, 12, 12), 0.3)
        with pytest.raises(ValueError, match="not trained over a range"):
            small(noise_level=0.1).at(0.1)

    def test_missing_and_superfluous_levels(self):
        v = torch.rand(1, 1, 12, 12)
        with pytest.raises(ValueError, match=r"takes a noise level in \(0\.01, 0\.2\)"):
            conditioned()(v)
        with pytest.raises(ValueError, match="takes no noise level"):
            small()(v, 0.1)
        with pytest.raises(ValueError, match=r"one per image, \(1,\); got shape \(2,\)"):
            conditioned()(v, torch.tensor([0.1, 0.1]))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"noise_level": 0.1, "conditioned": True}, "needs the range of its noise"),
            ({"noise_level": -0.1}, "noise_level must be positive"),
            ({"noise_level": float("nan")}, "noise_level must be positive and finite, got nan"),
            ({"noise_level": (0.2, 0.1)}, "0 < low < high"),
            ({"noise_level": (0.2,)}, r"0 < low < high, got \(0.2,\)"),
            ({"noise_level": (), "conditioned": True}, r"0 < low < high, got \(\)"),
        ],
    )
    def test_wrong_statements(self, options, message):
        with pytest.raises(ValueError, match=message):
            small(**options)


class TestBadInput:
    @pytest.mark.parametrize(
        ("v", "error", "message"),
        [
            (torch.zeros(1, 1, 8, 8, dtype=torch.uint8), TypeError, r"got torch\.uint8; convert"),
            (torch.rand(1, 1, 8, 8).numpy(), TypeError, "as a torch tensor, got ndarray"),
            (
                torch.rand(1, 1, 8, 8).double(),
                TypeError,
                r"float64 on cpu, .* torch.float32 on cpu",
            ),
            (torch.rand(1, 3, 8, 8), ValueError, "with 1 channels, got a tensor of shape"),
            (torch.rand(1, 8, 8), ValueError, r"expected \(batch, channels, height, width\)"),
            (torch.rand(1, 1, 8, 3), ValueError, "at least 4 samples along each axis, got 8 x 3"),
        ],
    )
    def test_one_clear_sentence(self, v, error, message):
        for call in (small(), small().potential, small().value_and_prox):
            with pytest.raises(error, match=message):
                call(v)


def test_any_potential_makes_a_network():
    net = ProximalNetwork(ConvexMLP(2, 5, depth=1), noise_level=1.0)
    assert net(torch.randn(4, 2)).shape == (4, 2)
    with pytest.raises(ValueError, match=r"expected \(batch, channels\) with 2 channels"):
        net(torch.randn(4, 3))
    with pytest.raises(TypeError, match="needs a ConvexPotential such as ConvexConv, got Conv2d"):
        ProximalNetwork(nn.Conv2d(1, 1, 3))


def test_copies_and_state_dicts_agree():
    net, v = conditioned(), torch.rand(1, 1, 12, 12)
    twin = small(noise_level=(0.01, 0.2), conditioned=True)
    twin.load_state_dict(net.state_dict())
    for other in (twin, copy.deepcopy(net)):
        assert torch.equal(other(v, 0.1), net(v, 0.1))


@pytest.mark.slow
def test_compiles():
    net, v = small(strides=(1, 2)), torch.rand(2, 1, 20, 24)
    compiled = torch.compile(net, fullgraph=True)
    with torch.no_grad():
        assert torch.allclose(compiled(v), net(v), atol=1e-5)
    compiled(v).square().sum().backward()
    weight = net.backbone.hidden[0].weight
    found, weight.grad = weight.grad, None
    net(v).square().sum().backward()
    assert torch.allclose(found, weight.grad, rtol=1e-3, atol=1e-5)
