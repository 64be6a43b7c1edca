"""The conditions of each theorem, their sharpness, and the default weight."""

import pytest
import torch

from tests.proximal.closed_form import BumpProx, QuadraticProx
from visionlab.proximal import LearnedProximalNetwork, default_weight, pnp_admm
from visionlab.proximal.guarantees import (
    admm_guarantee,
    choose_weight,
    mirror_guarantee,
    negative_weights,
    pgd_guarantee,
    splitting_guarantee,
)
from visionlab.proximal.physics import MatrixOperator, add_noise


def damaged() -> LearnedProximalNetwork:
    """A network whose constraint was broken behind its back."""
    torch.manual_seed(0)
    net = LearnedProximalNetwork(1, 4, strides=(1, 2), noise_level=0.1)
    name, weight = next((n, p) for n, p in net.named_parameters() if "heads" in n)
    weight.data.view(-1)[0] = -0.5
    assert negative_weights(net) == 1, name
    return net


def test_conditions_are_strict() -> None:
    net = BumpProx()
    assert admm_guarantee(net, rho=2.01, norm2=2.0).holds
    assert not admm_guarantee(net, rho=2.0, norm2=2.0).holds
    assert pgd_guarantee(net, eta=0.49, norm2=2.0).holds
    assert not pgd_guarantee(net, eta=0.5, norm2=2.0).holds
    assert splitting_guarantee(net).holds
    assert mirror_guarantee(net).holds


def test_a_network_that_need_not_be_a_prox_has_no_guarantee() -> None:
    net = damaged()
    for verdict in (
        admm_guarantee(net, rho=9.0, norm2=1.0),
        pgd_guarantee(net, eta=0.1, norm2=1.0),
        splitting_guarantee(net),
        mirror_guarantee(net),
    ):
        assert not verdict.holds
        assert verdict.reason.startswith("1 constrained weights are not nonnegative")


@pytest.mark.filterwarnings("ignore::visionlab.proximal.guarantees.GuaranteeWarning")
@pytest.mark.parametrize(("m", "rho"), [(1.0, 1.05), (1.0, 0.7), (0.3, 0.2), (2.0, 5.0)])
def test_the_descent_of_admm_is_the_formula_of_its_proof(m: float, rho: float) -> None:
    """One eigenvalue m and R = 0: x moves by d, AL by at most -d^2 (rho + 2m)(rho - m)/(2 rho)."""
    operator = MatrixOperator(torch.tensor([[m**0.5]], dtype=torch.float64), (1, 1, 1))
    images: list[torch.Tensor] = []
    run = pnp_admm(
        torch.tensor([[1.0]], dtype=torch.float64),
        operator,
        QuadraticProx(1.0),
        rho,
        iterations=6,
        tolerance=0,
        start=torch.full((1, 1, 1, 1), -2.0, dtype=torch.float64),
        callback=lambda k, x: images.append(x),
    )
    # z = x + u and rho u = -(m x - sqrt(m)) give x back from the images z
    z = torch.stack(images).flatten()
    x = (z - m**0.5 / rho) / (1 - m / rho)
    bound = -(x.diff() ** 2) * (rho + 2 * m) * (rho - m) / (2 * rho)
    assert (run.merit[:, 0].diff() <= bound + 1e-10).all()


def test_below_the_bound_the_lagrangian_rises_for_some_operator() -> None:
    """The condition is not an artefact of the proof: at rho = 0.9 ||A||^2 a rise exists."""
    generator = torch.Generator().manual_seed(0)
    operator = MatrixOperator(torch.eye(4, dtype=torch.float64), (1, 2, 2))
    y = add_noise(torch.ones(1, 4, dtype=torch.float64), 0.3, generator=generator)
    with pytest.warns(UserWarning, match="no theorem covers this run"):
        run = pnp_admm(y, operator, QuadraticProx(1.4), 0.9, iterations=30, tolerance=0)
    assert run.merit.diff(dim=0).max() > 1e-3


def test_default_weight_is_the_ratio_of_variances() -> None:
    assert default_weight(0.02, 0.1) == pytest.approx(0.04)
    assert choose_weight(BumpProx(noise_level=0.05), None, noise=0.02, name="rho") == pytest.approx(
        0.16
    )
    assert choose_weight(BumpProx(), 0.3, noise=0.02, name="rho") == 0.3
    with pytest.raises(
        ValueError, match="measurement_noise is a positive standard deviation, got 0"
    ):
        default_weight(0.0, 0.1)


def test_a_network_trained_over_a_range_asks_for_its_level() -> None:
    torch.manual_seed(0)
    net = LearnedProximalNetwork(1, 4, strides=(1,), noise_level=(0.02, 0.2), conditioned=True)
    with pytest.raises(ValueError, match=r"fix the level .* with net.at\(sigma\)"):
        choose_weight(net, None, noise=0.02, name="rho")
    assert choose_weight(net.at(0.04), None, noise=0.02, name="rho") == pytest.approx(0.25)
