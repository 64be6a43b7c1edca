"""Solvers on proximal maps with a closed-form prior: exact answers, descent, stopping, messages."""

import functools
import warnings
from collections.abc import Callable

import pytest
import torch

from tests.proximal.closed_form import BumpProx, QuadraticProx
from tests.proximal.physics.problems import PROBLEMS, SHAPE
from visionlab.proximal import (
    GuaranteeWarning,
    LearnedProximalNetwork,
    Restoration,
    pnp_admm,
    pnp_hqs,
    pnp_mirror,
    pnp_pgd,
)
from visionlab.proximal.inversion import invert
from visionlab.proximal.network import ProximalMap
from visionlab.proximal.physics import MatrixOperator, Physics, add_noise, gaussian_blur
from visionlab.proximal.solvers.mirror_descent import mirror_step
from visionlab.proximal.solvers.safeguard import safeguarded_step

Solver = Callable[..., Restoration]

# name -> (solver with its guaranteed setting, keyword that sets the weight, is it a step?)
GUARANTEED: dict[str, tuple[Solver, str]] = {
    "admm": (functools.partial(pnp_admm, guarantee=True), "rho"),
    "pgd": (functools.partial(pnp_pgd, guarantee=True), "eta"),
    "accelerated": (functools.partial(pnp_pgd, guarantee=True, accelerate=True), "eta"),
    "hqs": (functools.partial(pnp_hqs, accelerate=False), "weight"),
    "accelerated_hqs": (pnp_hqs, "weight"),
    "mirror": (pnp_mirror, "weight"),
}


def measurements(physics: Physics, *, batch: int = 2, noise: float = 0.05) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(batch, *SHAPE, generator=generator, dtype=torch.float64)
    return add_noise(physics(x), noise, generator=generator)


def run(name: str, y: torch.Tensor, physics: Physics, net: ProximalMap, weight: float,
        **options: object) -> Restoration:  # fmt: skip
    solver, keyword = GUARANTEED[name]
    return solver(y, physics, net, **{keyword: 1 / weight if keyword == "eta" else weight},
                  **options)  # fmt: skip


def small_network() -> ProximalMap:
    torch.manual_seed(0)
    net = LearnedProximalNetwork(2, 6, strides=(1, 2), alpha=0.05, beta=10.0, noise_level=0.1)
    return net.double().requires_grad_(False)


@pytest.mark.parametrize("solver", GUARANTEED)
@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("net", ["bump", "network"])
def test_guaranteed_runs_descend_on_every_problem(solver: str, problem: str, net: str) -> None:
    physics = PROBLEMS[problem]()
    prox = BumpProx() if net == "bump" else small_network()
    with warnings.catch_warnings():
        warnings.simplefilter("error", GuaranteeWarning)
        result = run(solver, measurements(physics), physics, prox, 0.08, iterations=40, tolerance=0)
    assert result.guaranteed
    rise = result.merit.diff(dim=0).max()
    assert rise <= 1e-9 * result.merit.abs().max()
    assert (result.merit[-1] < result.merit[0]).all()


@pytest.mark.parametrize("q", [0.5, 0.9])
@pytest.mark.parametrize("problem", ["gaussian_circular", "matrix", "compressed_sensing_1/4"])
@pytest.mark.parametrize("solver", ["mirror", "safeguarded", "plain_admm", "plain_pgd"])
def test_minimiser_of_h_plus_weight_r_is_reached(solver: str, problem: str, q: float) -> None:
    """With R = (1/q - 1)/2 ||x||^2 the answer is one linear solve."""
    physics = PROBLEMS[problem]()
    y, net = measurements(physics), QuadraticProx(q)
    weight = 1.1 * physics.norm2(SHAPE) if solver == "plain_pgd" else 0.3
    options = {"iterations": 3000, "tolerance": 1e-12}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GuaranteeWarning)
        # those that compare objectives stop where float64 cannot tell two of them apart
        if solver == "mirror":
            result = pnp_mirror(y, physics, net, weight, iterations=3000, tolerance=1e-8)
        elif solver == "safeguarded":
            result = pnp_admm(y, physics, net, weight, guarantee=True, iterations=3000,
                              tolerance=1e-8)  # fmt: skip
            assert result.guaranteed
        elif solver == "plain_admm":
            result = pnp_admm(y, physics, net, weight, **options)
        else:
            result = pnp_pgd(y, physics, net, 1 / weight, **options)
    expected = physics.solve(physics.adjoint(y), weight * (1 / q - 1), tolerance=1e-13)
    torch.testing.assert_close(result.x, expected, rtol=1e-6, atol=1e-6)
    prior = weight * (1 / q - 1) / 2 * result.x.flatten(1).square().sum(1)
    torch.testing.assert_close(result.objective[-1], physics.data_term(result.x, y) + prior)
    assert result.converged.all()


@pytest.mark.parametrize("accelerate", [False, True])
def test_splitting_minimises_the_envelope(accelerate: bool) -> None:
    """env R = (1 - q)/2 ||x||^2 for f(v) = q v."""
    physics, q, weight = PROBLEMS["gaussian_circular"](), 0.6, 0.2
    y = measurements(physics)
    result = pnp_hqs(y, physics, QuadraticProx(q), weight, accelerate=accelerate, iterations=2000,
                     tolerance=1e-12)  # fmt: skip
    expected = physics.solve(physics.adjoint(y), weight * (1 - q))
    torch.testing.assert_close(result.x, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("solver", ["pgd", "accelerated"])
def test_guarantee_keeps_the_weight_through_the_relaxed_prox(solver: str) -> None:
    """f_tau(v) = q' v with q' = 1 - tau + tau q, so the prior is penalty * (1/q' - 1)/2 ||x||^2."""
    physics, q, weight = PROBLEMS["gaussian_circular"](), 0.6, 0.2
    y = measurements(physics)
    result = run(solver, y, physics, QuadraticProx(q), weight, iterations=5000, tolerance=1e-12)
    penalty = 1 / 0.95
    relaxed = 1 - (weight / penalty) * (1 - q)
    expected = physics.solve(physics.adjoint(y), penalty * (1 / relaxed - 1))
    torch.testing.assert_close(result.x, expected, rtol=1e-6, atol=1e-6)
    assert result.weight == pytest.approx(weight)
    # to first order in tau this is the weight asked for, times the envelope's (1 - q)/2 ||x||^2
    assert penalty * (1 / relaxed - 1) == pytest.approx(weight * (1 - q), rel=0.09)


def test_outside_the_theorem_the_lagrangian_can_rise_and_the_run_says_so() -> None:
    physics = PROBLEMS["gaussian_circular"]()
    y = measurements(physics)
    with pytest.warns(
        GuaranteeWarning,
        match=r"rho = 0.3 <= \|\|A\|\|\^2 = 1, the theorem needs >; guarantee=True keeps",
    ):
        result = pnp_admm(y, physics, BumpProx(), 0.3, iterations=60, tolerance=0)
    assert not result.guaranteed
    assert result.merit.diff(dim=0).max() > 0.1
    with pytest.warns(
        GuaranteeWarning,
        match=r"eta = 2 >= 1 / \|\|A\|\|\^2 = 1, the theorem needs <; guarantee=True keeps",
    ):
        assert not pnp_pgd(y, physics, BumpProx(), 2.0, iterations=2).guaranteed


@pytest.mark.parametrize("net", [BumpProx(), QuadraticProx(0.3), QuadraticProx(1.3)])
def test_safeguarded_admm_is_admm_while_the_objective_falls(net: ProximalMap) -> None:
    physics = PROBLEMS["gaussian_circular"]()
    y = measurements(physics)
    options = {"iterations": 30, "tolerance": 0.0}
    with pytest.warns(GuaranteeWarning):
        plain = pnp_admm(y, physics, net, 0.3, **options)
    safe = pnp_admm(y, physics, net, 0.3, guarantee=True, **options)
    assert safe.guaranteed
    assert safe.guarantee.quantity == "h + w R"
    assert torch.equal(safe.merit, safe.objective)
    assert (plain.objective.diff(dim=0) < 0).all()
    torch.testing.assert_close(safe.x, plain.x)
    assert plain.merit.diff(dim=0).max() > 0.1  # its own merit rises: nothing covered it


def test_a_fast_step_that_rises_gives_way_to_mirror_descent_sample_by_sample() -> None:
    physics, net, weight = PROBLEMS["gaussian_circular"](), BumpProx(), 0.3
    y = measurements(physics)
    plain = functools.partial(mirror_step, physics=physics, prox=net, weight=weight, y=y, unit=1.0)

    def fast(x: torch.Tensor, u: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """For the first sample what mirror descent found next, for the second a far point."""
        v = torch.stack([best.memory[0][0], y[1] + 5.0])
        return v, u + 7.0, *net.prior_of_output(v)

    v = y.clone()
    x, prior = net.prior_of_output(v)
    objective = physics.data_term(x, y) + weight * prior
    slope = physics.gradient(x, y) + weight * (v - x)
    memory = (v, x, slope, objective, torch.ones(2, dtype=torch.float64))
    once = plain(memory)
    best = plain(once.memory)
    now = safeguarded_step(
        (*memory, torch.zeros_like(x)), fast=fast, plain=plain, physics=physics, weight=weight,
        y=y, norm2=1.0,
    )  # fmt: skip
    torch.testing.assert_close(now.image, torch.stack([best.image[0], once.image[1]]))
    torch.testing.assert_close(now.objective, torch.stack([best.objective[0], once.objective[1]]))
    assert (now.objective < objective).all()
    torch.testing.assert_close(now.memory[2][0], best.memory[2][0])  # the gradient at the new point
    dual = now.memory[-1]
    assert (dual[0] == 7.0).all()
    torch.testing.assert_close(dual[1], once.memory[0][1] - once.image[1])


def test_safeguarded_admm_ends_at_a_critical_point() -> None:
    """F's gradient at x = f(v), A^T (A x - y) + w (v - x), vanishes; v is found by inversion."""
    physics, net, weight = PROBLEMS["gaussian_circular"](), small_network(), 0.08
    y = measurements(physics)
    found = pnp_admm(y, physics, net, weight, guarantee=True, iterations=2000, tolerance=1e-8)
    assert found.converged.all()
    inverse = invert(net, found.x, tolerance=1e-11)
    assert inverse.converged.all()
    gradient = physics.gradient(found.x, y) + weight * (inverse.y - found.x)
    assert gradient.abs().max() < 1e-5 * physics.adjoint(y).abs().max()


def test_inside_the_theorem_nothing_is_relaxed() -> None:
    physics = PROBLEMS["gaussian_circular"]()
    y = measurements(physics)
    for guarantee in (False, True):
        result = pnp_admm(y, physics, BumpProx(), 1.5, guarantee=guarantee, iterations=5)
        assert result.guaranteed
        assert "rho = 1.5 > ||A||^2 = 1" in result.guarantee.reason
    a, b = (pnp_admm(y, physics, BumpProx(), 1.5, guarantee=g, iterations=5).x for g in (0, 1))
    assert torch.equal(a, b)


@pytest.mark.parametrize("solver", GUARANTEED)
def test_a_sample_does_not_see_its_neighbours(solver: str) -> None:
    """One sample converges long before the other; stopping it must not touch either."""
    physics = PROBLEMS["gaussian_circular"]()
    y = torch.cat([1e-3 * measurements(physics, batch=1), measurements(physics, batch=1)])
    options = {"iterations": 60, "tolerance": 1e-3}
    both = run(solver, y, physics, BumpProx(), 0.2, **options)
    for i in range(2):
        alone = run(solver, y[i : i + 1], physics, BumpProx(), 0.2, **options)
        torch.testing.assert_close(both.x[i : i + 1], alone.x, rtol=0, atol=1e-12)
        assert both.iterations[i] == alone.iterations[0]
        frozen = both.objective[int(both.iterations[i]) - 1 :, i]
        assert (frozen == frozen[0]).all()


@pytest.mark.parametrize("solver", GUARANTEED)
def test_converged_runs_stop_and_say_so(solver: str) -> None:
    physics = PROBLEMS["inpainting"]()
    y = measurements(physics)
    result = run(solver, y, physics, QuadraticProx(0.7), 0.5, iterations=900, tolerance=1e-6)
    assert result.converged.all()
    assert int(result.iterations.max()) == len(result.objective) < 900
    assert (result.residuals[-1] <= 1e-6).all()
    assert result.reason.startswith("all 2 samples converged")
    short = run(solver, y, physics, QuadraticProx(0.7), 0.5, iterations=2, tolerance=0)
    assert short.reason == "2 of 2 samples used all 2 iterations without converging"


def test_a_diverging_sample_stops_and_its_last_good_iterate_is_returned() -> None:
    """f(v) = 1.6 v with a step far outside the theorem: one sample starts at the fixed point 0."""
    physics = gaussian_blur(1.0)
    y = torch.cat([torch.zeros(1, *SHAPE, dtype=torch.float64), measurements(physics, batch=1)])
    with pytest.warns(GuaranteeWarning):
        result = pnp_pgd(y, physics, QuadraticProx(1.6), 8.0, iterations=500)
    assert result.diverged.tolist() == [False, True]
    assert torch.isfinite(result.x).all()
    assert result.x[1].norm() < 20 * y[1].norm()
    assert int(result.iterations[1]) < 50
    assert "1 of 2 samples diverged (first at iteration" in result.reason
    assert "last good iterate is returned" in result.reason


def test_infinities_count_as_divergence() -> None:
    class Explode(QuadraticProx):
        def value_and_prox(self, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            self.q *= 1e200
            return super().value_and_prox(v)

    physics = PROBLEMS["inpainting"]()
    y = measurements(physics)
    result = pnp_admm(y, physics, Explode(1e-200), 2.0, iterations=9, tolerance=0)
    assert result.diverged.all()
    assert torch.isfinite(result.x).all()


def test_default_weight_follows_from_the_noise_levels() -> None:
    physics = PROBLEMS["gaussian_circular"]()
    y, net = measurements(physics), BumpProx(noise_level=0.1)
    assert pnp_hqs(y, physics, net, noise=0.02, iterations=1).weight == pytest.approx(0.04)
    result = pnp_pgd(y, physics, net, noise=0.02, guarantee=True, iterations=1)
    assert result.weight == pytest.approx(0.04)


def test_callback_sees_every_iterate() -> None:
    physics = PROBLEMS["inpainting"]()
    seen: list[tuple[int, torch.Tensor]] = []
    result = pnp_hqs(measurements(physics), physics, BumpProx(), 0.1, iterations=3, tolerance=0,
                     callback=lambda k, x: seen.append((k, x)))  # fmt: skip
    assert [k for k, _ in seen] == [0, 1, 2]
    assert torch.equal(seen[-1][1], result.x)


def test_measurements_are_not_changed_and_the_start_is_used() -> None:
    physics = PROBLEMS["tomography"]()
    y = measurements(physics)
    kept = y.clone()
    start = torch.full((2, *SHAPE), 0.3, dtype=torch.float64)
    a = pnp_hqs(y, physics, BumpProx(), 0.1, iterations=2, start=start)
    b = pnp_hqs(y, physics, BumpProx(), 0.1, iterations=2)
    assert torch.equal(y, kept)
    assert (start == 0.3).all()
    assert not torch.equal(a.x, b.x)


@pytest.mark.parametrize("solver", GUARANTEED)
def test_messages(solver: str) -> None:
    call = GUARANTEED[solver][0]
    physics = PROBLEMS["matrix"]()
    y = measurements(physics)
    with pytest.raises(TypeError, match=r"measurements: expected floats .* got torch.int64"):
        run(solver, y.long(), physics, BumpProx(), 0.1)
    bad = y.clone()
    bad[0, 0] = torch.nan
    with pytest.raises(ValueError, match="measurements: 1 of 200 values are NaN or infinite"):
        run(solver, bad, physics, BumpProx(), 0.1)
    with pytest.raises(ValueError, match=r"measurements of shape \(B, 100\), got \(2, 99\)"):
        run(solver, y[:, 1:], physics, BumpProx(), 0.1)
    with pytest.raises(ValueError, match="is a positive number, got -"):
        run(solver, y, physics, BumpProx(), -0.1)
    with pytest.raises(TypeError, match=r"need an exact prox .* got Identity: a denoiser"):
        run(solver, y, physics, torch.nn.Identity(), 0.1)
    with pytest.raises(TypeError, match=r"physics: expected a Physics .*, got function"):
        call(y, lambda x: x, BumpProx(), 0.1)
    with pytest.raises(ValueError, match=r"start has shape \(1, 2\), the images \(2, 2, 18, 18\)"):
        run(solver, y, physics, BumpProx(), 0.1, start=torch.zeros(1, 2))
    with pytest.raises(ValueError, match="iterations is at least 1, got 0"):
        run(solver, y, physics, BumpProx(), 0.1, iterations=0)
    with pytest.raises(ValueError, match="Missing: noise="):
        call(y, physics, BumpProx())
    with pytest.raises(ValueError, match="Missing: a network whose noise_level is known"):
        call(y, physics, BumpProx(noise_level=None), noise=0.1)


def test_a_network_for_other_channels_says_so() -> None:
    physics = MatrixOperator(torch.eye(3 * 8 * 8), (3, 8, 8))
    with pytest.raises(ValueError, match="channel"):
        pnp_hqs(torch.rand(1, 192, dtype=torch.float64), physics, small_network(), 0.1)


@pytest.mark.parametrize("tau", [0.01, 0.5, 1.0])
def test_relaxed_prior_is_the_general_formula_without_its_cancellation(tau: float) -> None:
    v = measurements(PROBLEMS["inpainting"]())
    relaxed = BumpProx().relaxed(tau)
    image, prior = relaxed.prior_of_output(v)
    expected_image, expected = ProximalMap.prior_of_output(relaxed, v)
    torch.testing.assert_close(image, expected_image)
    torch.testing.assert_close(prior, expected, rtol=1e-9, atol=1e-9)
    single = relaxed.prior_of_output(v.float())[1].double()
    assert (single - expected).abs().max() < 1e-4 * tau


def test_a_network_that_is_no_prox_gets_no_advice_on_steps() -> None:
    net = LearnedProximalNetwork(2, 4, strides=(1, 2), noise_level=0.1)
    with torch.no_grad():
        net.backbone.get_submodule("hidden.0").weight[0, 0, 0, 0] = -0.5  # type: ignore[index,operator]
    physics = PROBLEMS["matrix"]()
    y = measurements(physics).float()
    with pytest.warns(GuaranteeWarning, match="1 constrained weights are not nonneg") as caught:
        assert not pnp_hqs(y, physics, net, 0.3, iterations=1).guaranteed
    assert "guarantee=True" not in str(caught[0].message)
