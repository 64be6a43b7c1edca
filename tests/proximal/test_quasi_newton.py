import pytest
import torch

from visionlab.proximal import LearnedProximalNetwork, ProximalMap
from visionlab.proximal.quasi_newton import jacobian_diagonal, quasi_newton


class Quadratic(ProximalMap):
    """f(v) = A v with a known symmetric A, on images of one row."""

    def __init__(self, matrix):
        super().__init__()
        self.matrix = matrix

    @property
    def curvature(self):
        return 1e-3

    def value_and_prox(self, v):
        f = v @ self.matrix
        return 0.5 * (v * f).flatten(1).sum(1), f


def matrix(n=30):
    generator = torch.Generator().manual_seed(0)
    local = torch.randn(n, n, generator=generator, dtype=torch.float64) * 0.02
    return local @ local.T + torch.linspace(0.03, 1, n, dtype=torch.float64).diag()


def test_quadratic_is_solved_exactly():
    a = matrix()
    x = torch.randn(3, 30, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    y, residual, iterations = quasi_newton(Quadratic(a), x, x, tolerance=1e-9, max_iterations=60)
    assert torch.allclose(y, torch.linalg.solve(a, x.mT).mT, atol=1e-6)
    assert (residual <= 1e-9).all()
    assert (iterations > 0).all()


def test_diagonal_is_estimated_near_the_true_one():
    a = matrix()
    y = torch.zeros(2, 30, dtype=torch.float64)
    found = jacobian_diagonal(Quadratic(a), y, 400)
    assert torch.allclose(found, a.diagonal().expand(2, -1), rtol=0.1)
    assert (jacobian_diagonal(Quadratic(0 * a), y, 1) > 0).all()


def test_a_good_diagonal_saves_iterations():
    """The reason for the probes: with none, the scale of each pixel has to be learned."""
    a = torch.linspace(0.01, 1, 200, dtype=torch.float64).diag()
    x = torch.ones(1, 200, dtype=torch.float64)
    *_, iterations = quasi_newton(Quadratic(a), x, x, tolerance=1e-8, max_iterations=300)
    assert iterations.item() <= 3


@pytest.mark.parametrize("first", ["same", "energy"])
def test_an_image_does_not_depend_on_its_neighbours(first):
    torch.manual_seed(0)
    net = LearnedProximalNetwork(1, 4, strides=(1, 2), alpha=0.01, beta=20.0, first=first).double()
    x = torch.rand(3, 1, 10, 12, dtype=torch.float64)
    options = {"tolerance": 1e-8, "max_iterations": 100}
    together, residual, _ = quasi_newton(net, x, x, **options)
    assert (residual <= 1e-8).all()
    alone, *_ = quasi_newton(net, x[1:2], x[1:2], **options)
    assert torch.allclose(together[1:2], alone, atol=1e-9)


def test_no_step_is_taken_without_iterations():
    x = torch.ones(2, 30, dtype=torch.float64)
    y, residual, iterations = quasi_newton(
        Quadratic(matrix()), x, x, tolerance=1e-9, max_iterations=0
    )
    assert torch.equal(y, x)
    assert torch.allclose(residual, (x @ matrix() - x).norm(dim=1))
    assert not iterations.any()
