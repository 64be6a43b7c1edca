"""What holds for every operator: exact adjoint, norm bound, solve, batches, devices' precision."""

import pytest
import torch

from tests.proximal.physics.problems import PROBLEMS, SHAPE
from visionlab.proximal.physics import Physics


@pytest.fixture(params=PROBLEMS, name="physics")
def _physics(request: pytest.FixtureRequest) -> Physics:
    return PROBLEMS[request.param]()


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def dense(physics: Physics) -> torch.Tensor:
    """The matrix ``(m, n)``, column by column: the slow, obvious twin."""
    n = int(torch.tensor(SHAPE).prod())
    return physics(torch.eye(n, dtype=torch.float64).reshape(n, *SHAPE)).flatten(1).T


def test_adjoint_passes_the_dot_test(physics: Physics) -> None:
    x = draw(3, *SHAPE)
    ax = physics(x)
    y = draw(*ax.shape, seed=1)
    left, right = (ax * y).flatten(1).sum(1), (x * physics.adjoint(y)).flatten(1).sum(1)
    scale = ax.flatten(1).norm(dim=1) * y.flatten(1).norm(dim=1)
    assert ((left - right).abs() / scale).max() < 1e-13


def test_adjoint_is_the_transposed_matrix(physics: Physics) -> None:
    matrix = dense(physics)
    y = draw(1, *physics(draw(1, *SHAPE)).shape[1:], seed=2)
    torch.testing.assert_close(physics.adjoint(y).flatten(), matrix.T @ y.flatten())


def test_norm_is_bounded_from_above_and_tightly(physics: Physics) -> None:
    true = float(torch.linalg.matrix_norm(dense(physics), ord=2)) ** 2
    bound = physics.norm2(SHAPE)
    assert true * (1 - 1e-12) <= bound <= 1.35 * true


@pytest.mark.parametrize("rho", [0.03, 2.0])
def test_solve_is_the_dense_answer(physics: Physics, rho: float) -> None:
    matrix = dense(physics)
    rhs = draw(2, *SHAPE, seed=3)
    normal = matrix.T @ matrix + rho * torch.eye(matrix.shape[1], dtype=torch.float64)
    expected = torch.linalg.solve(normal, rhs.flatten(1).T).T.reshape(rhs.shape)
    torch.testing.assert_close(
        physics.solve(rhs, rho, tolerance=1e-12), expected, rtol=1e-8, atol=1e-8
    )


def test_solve_takes_one_weight_per_sample(physics: Physics) -> None:
    rhs = draw(2, *SHAPE, seed=4)
    both = physics.solve(rhs, torch.tensor([0.1, 3.0], dtype=torch.float64), tolerance=1e-10)
    one = torch.cat([physics.solve(rhs[:1], 0.1, tolerance=1e-10),
                     physics.solve(rhs[1:], 3.0, tolerance=1e-10)])  # fmt: skip
    torch.testing.assert_close(both, one, rtol=1e-8, atol=1e-8)


def test_a_sample_does_not_see_its_neighbours(physics: Physics) -> None:
    x = draw(4, *SHAPE, seed=5)
    y = physics(x)
    torch.testing.assert_close(physics(x[1:2]), y[1:2], rtol=0, atol=1e-12)
    torch.testing.assert_close(physics.initial(y)[1:2], physics.initial(y[1:2]), rtol=0, atol=1e-9)


def test_both_maps_are_differentiable_and_the_gradient_is_the_other_map(physics: Physics) -> None:
    x = draw(1, *SHAPE).requires_grad_()
    y = draw(1, *physics(x).shape[1:], seed=1).requires_grad_()
    (gx,) = torch.autograd.grad((physics(x) * y.detach()).sum(), x)
    (gy,) = torch.autograd.grad((physics.adjoint(y) * x.detach()).sum(), y)
    torch.testing.assert_close(gx, physics.adjoint(y.detach()))
    torch.testing.assert_close(gy, physics(x.detach()))


def test_gradient_of_the_data_term(physics: Physics) -> None:
    x = draw(2, *SHAPE).requires_grad_()
    y = draw(2, *physics(x).shape[1:], seed=1)
    (expected,) = torch.autograd.grad(physics.data_term(x, y).sum(), x)
    torch.testing.assert_close(physics.gradient(x.detach(), y), expected)


def test_shapes_and_precision_follow_the_input(physics: Physics) -> None:
    x = draw(2, *SHAPE).float()
    y = physics(x)
    assert y.dtype == torch.float32
    assert physics.image_shape(y) == SHAPE
    for image in (physics.adjoint(y), physics.initial(y), physics.solve(x, 0.5)):
        assert (image.dtype, image.shape) == (torch.float32, x.shape)
    torch.testing.assert_close(y.double(), physics(x.double()), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rho", [0.0, -1.0, float("nan")])
def test_a_weight_must_be_positive(physics: Physics, rho: float) -> None:
    with pytest.raises(ValueError, match="a weight is a positive number"):
        physics.solve(draw(1, *SHAPE), rho)


def test_weights_must_match_the_batch(physics: Physics) -> None:
    with pytest.raises(ValueError, match=r"one weight per sample is a \(1,\) tensor, got \(2,\)"):
        physics.solve(draw(1, *SHAPE), torch.ones(2))
    with pytest.raises(ValueError, match=r"weights are positive numbers, got \[1.0, 0.0\]"):
        physics.solve(draw(2, *SHAPE), torch.tensor([1.0, 0.0]))
