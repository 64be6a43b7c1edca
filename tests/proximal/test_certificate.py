import pytest
import torch
from torch import nn

from visionlab.proximal import LearnedProximalNetwork, certify

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:FutureWarning")


def network(**options):
    torch.manual_seed(0)
    return LearnedProximalNetwork(1, 4, strides=(1, 2), alpha=0.01, **options)


def points(dtype=torch.float64):
    return torch.rand(2, 1, 37, 53, generator=torch.Generator().manual_seed(5)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_holds_for_the_network_and_what_is_made_of_it(dtype):
    ranged = network(noise_level=(0.01, 0.2), conditioned=True)
    for net in (network(), network(constraint="square"), network().relaxed(0.4), ranged.at(0.1)):
        report = certify(net, points(dtype))
        assert report.holds, str(report)
        assert report.symmetry <= (1e-10 if dtype == torch.float64 else 1e-4)
        assert report.guaranteed_curvature == net.curvature
        assert report.minimum_curvature >= 0.999 * net.curvature
        assert report.monotonicity >= 0.999 * net.curvature


def test_finds_a_plain_network_out():
    torch.manual_seed(0)
    cnn = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 1, 3, padding=1))
    report = certify(cnn, points())
    assert not report.holds
    assert any("not a gradient: the Jacobian is asymmetric by" in f for f in report.failures)
    assert any("not convex" in f and "is below 0 by" in f for f in report.failures)
    assert str(report).count("FAILS") == 1


def test_finds_a_gradient_that_is_not_monotone():
    kernel = torch.tensor([[[[0.0, -1, 0], [-1, 2, -1], [0, -1, 0]]]], dtype=torch.float64)

    def indefinite(x):  # a symmetric filter with negative frequencies
        return nn.functional.conv2d(x, kernel, padding=1)

    report = certify(indefinite, points())
    assert report.symmetry <= 1e-10
    assert any("not convex: curvature -" in f for f in report.failures)
    assert not any("not a gradient" in f for f in report.failures)


def test_spectrum_of_a_known_map():
    """A diagonal map: Lanczos must find both ends of the spectrum."""
    scale = torch.linspace(0.3, 2.0, 8 * 8, dtype=torch.float64).reshape(1, 1, 8, 8)
    report = certify(lambda x: scale * x, torch.rand(2, 1, 8, 8).double(), lanczos_steps=64)
    assert report.minimum_curvature == pytest.approx(0.3, abs=1e-6)
    assert report.maximum_curvature == pytest.approx(2.0, abs=1e-6)
    assert report.holds
    identity = certify(lambda x: x, torch.rand(2, 1, 8, 8).double())  # one-step Krylov space
    assert identity.minimum_curvature == pytest.approx(1.0)
    assert identity.holds


def test_finds_a_negative_weight():
    net = network()
    with torch.no_grad():
        net.backbone.hidden[0].weight[0, 0, 0, 0] = -0.125
    report = certify(net, points())
    assert report.smallest_weight == -0.125
    assert report.failures[-1] == "a weight that must be nonnegative is -0.125"


def test_the_network_is_left_as_it_was():
    net = network().train()
    certify(net, points())
    assert net.training
    assert all(p.dtype == torch.float32 and p.requires_grad for p in net.parameters())


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (torch.zeros(1, 1, 8, 8, dtype=torch.uint8), TypeError, "points: expected floats"),
        (torch.full((1, 1, 8, 8), float("nan")), ValueError, "points: 64 of 64 values are NaN"),
        (torch.rand(0, 1, 8, 8), ValueError, "points: empty"),
    ],
)
def test_bad_points(x, error, message):
    with pytest.raises(error, match=message):
        certify(network(), x)


@pytest.mark.parametrize(
    "cut",
    [
        lambda x: x - torch.sin(x.roll(1, -1)).detach(),  # J = 1 for torch, not so in truth
        lambda x: 0.5 * x.detach(),
    ],
)
def test_finds_a_map_whose_derivative_torch_does_not_see(cut):
    report = certify(cut, points())
    assert report.symmetry == 0
    assert any("derivative that torch finds is" in f for f in report.failures)


def test_a_map_that_is_not_finite_fails():
    assert not certify(lambda x: x * float("nan"), points()).holds


def test_what_cannot_be_probed():
    with pytest.raises(TypeError, match="expected a map of images, got str"):
        certify("last.ckpt", points())
    with pytest.raises(ValueError, match="are at least 1, got 0 and 20"):
        certify(network(), points(), probes=0)


def test_a_map_that_changes_the_shape():
    with pytest.raises(ValueError, match="a prox keeps the shape"):
        certify(nn.Conv2d(1, 1, 3), torch.rand(1, 1, 8, 8))
