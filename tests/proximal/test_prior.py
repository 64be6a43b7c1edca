import pytest
import torch

from visionlab.proximal import LearnedProximalNetwork, evaluate_prior, invert


def network(**options):
    torch.manual_seed(0)
    return LearnedProximalNetwork(
        1, 4, **{"strides": (1, 2), "alpha": 0.01, "beta": 20.0, **options}
    )


def images(count=4, dtype=torch.float64):
    return torch.rand(count, 1, 10, 12, generator=torch.Generator().manual_seed(2)).to(dtype)


def invert_with_scipy(net, x):
    """The slow twin: one sample at a time, nonlinear conjugate gradients on the same problem."""
    from scipy.optimize import minimize

    found = []
    for one in x:

        def objective(flat, one=one):
            y = torch.from_numpy(flat).reshape(1, *one.shape)
            with torch.no_grad():
                psi, f = net.value_and_prox(y)
            return (psi - (y * one).sum()).item(), (f - one).flatten().numpy()

        result = minimize(
            objective, one.flatten().numpy(), jac=True, method="CG",
            options={"gtol": 1e-8, "maxiter": 5000},
        )  # fmt: skip
        found.append(torch.from_numpy(result.x).reshape(one.shape))
    return torch.stack(found)


def test_inversion_agrees_with_one_at_a_time():
    net, x = network().double(), images()
    found = invert(net, x, tolerance=1e-9)
    assert found.converged.all()
    assert torch.allclose(found.y, invert_with_scipy(net, x), atol=1e-5)


def test_prior_without_and_with_inversion_agree():
    net, v = network().double(), images()
    f, expected = net.prior_of_output(v)
    result = evaluate_prior(net, f.detach(), tolerance=1e-9)
    assert result.converged.all()
    assert torch.allclose(result.y, v, atol=1e-6)
    assert torch.allclose(result.value, expected, atol=1e-9)
    relaxed = net.relaxed(0.3)
    f, expected = relaxed.prior_of_output(v)
    result = evaluate_prior(relaxed, f.detach(), tolerance=1e-9)
    assert torch.allclose(result.value, expected, atol=1e-9)


@pytest.mark.parametrize("iterations", [0, 1, 2])
def test_an_inexact_inversion_still_gives_a_certified_interval(iterations):
    net, x = network().double(), images() * 3 - 1
    truth = evaluate_prior(net, x, tolerance=1e-9, max_iterations=200).value
    rough = evaluate_prior(net, x, max_iterations=iterations, cg_iterations=3)
    assert not rough.converged.any()
    assert (rough.lower_bound <= truth + 1e-9).all()
    assert (truth <= rough.lower_bound + rough.gap + 1e-9).all()
    assert torch.allclose(rough.gap, rough.residual**2 / (4 * 0.01))


def test_samples_end_on_their_own_and_do_not_disturb_each_other():
    net, x = network().double(), images(3)
    start = invert(net, x, tolerance=1e-10).y
    start[1:] = x[1:]  # the first one begins at its solution
    together = invert(net, x, start=start, tolerance=1e-8)
    assert together.iterations[0] == 0
    assert (together.iterations[1:] > 0).all()
    alone = torch.cat([invert(net, x[i : i + 1], tolerance=1e-8).y for i in (1, 2)])
    assert torch.allclose(together.y[1:], alone, atol=1e-8)


def test_single_precision_reaches_the_default_tolerance():
    result = evaluate_prior(network(), images(dtype=torch.float32))
    assert result.converged.all()
    assert result.residual.max() <= 1e-4
    assert result.value.dtype == torch.float32


def test_double_precision_points_on_a_single_precision_network():
    net = network()
    result = evaluate_prior(net, images(), tolerance=1e-9)
    assert result.converged.all()
    assert result.value.dtype == torch.float64
    assert next(net.parameters()).dtype == torch.float32


def test_a_point_off_the_range_does_not_converge_and_says_so():
    """With alpha = 0, f is bounded: 1e6 is no value of it, and nothing bounds R above."""
    net = network(alpha=0.0).double()
    result = evaluate_prior(net, images() + 1e6, max_iterations=5)
    assert not result.converged.any()
    assert (result.residual > 1e5).all()
    assert result.gap.isinf().all()


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (torch.zeros(1, 1, 8, 8, dtype=torch.uint8), TypeError, "x: expected floats"),
        (torch.full((1, 1, 8, 8), float("inf")), ValueError, "x: 64 of 64 values are NaN"),
    ],
)
def test_bad_points(x, error, message):
    with pytest.raises(error, match=message):
        evaluate_prior(network(), x)
    with pytest.raises(ValueError, match="start has shape"):
        evaluate_prior(network(), torch.rand(2, 1, 8, 8), start=torch.rand(1, 1, 8, 8))


def test_a_map_without_potential():
    with pytest.raises(TypeError, match=r"a prior needs a potential.*got Identity"):
        evaluate_prior(torch.nn.Identity(), torch.rand(1, 1, 8, 8))
