import pytest
import torch

from visionlab.proximal import LearnedProximalNetwork, evaluate_prior, prior_curve
from visionlab.proximal.curves import PriorCurve, gaussian_smoothing


def network():
    torch.manual_seed(0)
    return LearnedProximalNetwork(1, 4, strides=(1, 2), alpha=0.01, beta=20.0).double()


def images():
    return torch.rand(3, 1, 12, 12, generator=torch.Generator().manual_seed(1)).double()


@pytest.mark.parametrize("path", ["noise", "blur", "mixing"])
def test_values_are_those_of_the_prior_at_the_moved_images(path):
    net, x, levels = network(), images(), (0.0, 0.2, 0.4)
    curve = prior_curve(net, x, path, levels, generator=torch.Generator().manual_seed(2))
    assert curve.value.shape == (3, 3)
    assert curve.converged.all()
    assert torch.allclose(curve.value[0], evaluate_prior(net, x).value, atol=1e-6)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    moved = {
        "noise": x + 0.4 * noise,
        "blur": gaussian_smoothing(x, 0.4),
        "mixing": 0.6 * x + 0.4 * x.roll(-1, 0),
    }[path]
    assert torch.allclose(curve.value[2], evaluate_prior(net, moved).value, atol=1e-6)


def test_ordered_triples_by_hand():
    value = torch.tensor([[0.0, 0.0], [1.0, 2.0], [2.0, 1.0]])
    known = torch.ones(3, 2, dtype=torch.bool)
    curve = PriorCurve("noise", (0.0, 0.1, 0.2), value, torch.zeros(3, 2), known)
    assert curve.ordered_triples() == 0.5
    known[1, 0] = False
    assert curve.ordered_triples() == 0.0
    with pytest.raises(ValueError, match="at least 3 levels"):
        PriorCurve("noise", (0.0,), value[:1], value[:1], known[:1]).ordered_triples()


def test_smoothing_is_a_normalised_gaussian():
    spike = torch.zeros(1, 2, 33, 33, dtype=torch.float64)
    spike[..., 16, 16] = 1.0
    blurred = gaussian_smoothing(spike, 2.0)
    grid = torch.arange(33, dtype=torch.float64) - 16
    assert blurred.sum((2, 3)).tolist() == [[pytest.approx(1.0), pytest.approx(1.0)]]
    spread = (blurred[0, 0].sum(0) * grid**2).sum().sqrt()
    assert spread.item() == pytest.approx(2.0, rel=0.01)
    assert gaussian_smoothing(spike, 0) is spike


@pytest.mark.parametrize(
    ("path", "levels", "count", "message"),
    [
        ("zoom", (0.0, 1.0), 2, "path is 'noise', 'blur' or 'mixing'"),
        ("noise", (0.2, 0.1), 2, "levels must rise"),
        ("mixing", (0.0, 0.1), 1, "at least two images"),
    ],
)
def test_wrong_arguments(path, levels, count, message):
    with pytest.raises(ValueError, match=message):
        prior_curve(network(), images()[:count], path, levels)


def test_blur_of_a_signal():
    with pytest.raises(ValueError, match=r"blur needs images \(B, C, H, W\), got shape"):
        prior_curve(network(), torch.rand(2, 1, 16), "blur", (0.0, 1.0))
