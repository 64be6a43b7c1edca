"""Operators from functions and matrices."""

import pytest
import torch

from visionlab.proximal.physics import FunctionOperator, MatrixOperator


def test_function_operator_takes_a_given_adjoint() -> None:
    operator = FunctionOperator(lambda x: 2 * x, (1, 3, 3), adjoint=lambda y: 2 * y)
    assert torch.equal(operator.adjoint(torch.ones(1, 1, 3, 3)), 2 * torch.ones(1, 1, 3, 3))


def test_operators_that_are_not_square_say_which_side_is_wrong() -> None:
    with pytest.raises(ValueError, match=r"must be \(m, 6\); got \(4, 5\)"):
        MatrixOperator(torch.ones(4, 5), (1, 2, 3))
    operator = MatrixOperator(torch.ones(4, 6), (1, 2, 3))
    with pytest.raises(ValueError, match=r"images of shape \(1, 2, 3\), got \(1, 3, 2\)"):
        operator(torch.zeros(1, 1, 3, 2))
    with pytest.raises(ValueError, match=r"measurements of shape \(B, 4\), got \(2, 6\)"):
        operator.adjoint(torch.zeros(2, 6))
    with pytest.raises(ValueError, match=r"images of shape \(1, 2, 3\), got \(1, 3, 2\)"):
        FunctionOperator(lambda x: x, (1, 2, 3))(torch.zeros(1, 1, 3, 2))
    with pytest.raises(ValueError, match="the function is not linear"):
        FunctionOperator(torch.square, (1, 2, 3))
    with pytest.raises(ValueError, match="the function is not linear"):
        FunctionOperator(lambda x: x + 1, (1, 2, 3))
    with pytest.raises(ValueError, match="maps every image to zero"):
        FunctionOperator(torch.zeros_like, (1, 2, 3))
    with pytest.raises(ValueError, match="the adjoint is not the transpose of the operator"):
        FunctionOperator(lambda x: 2 * x, (1, 2, 3), adjoint=lambda y: y)
    with pytest.raises(ValueError, match=r"images of shape \(1, 2, 2\), not \(1, 2, 3\)"):
        FunctionOperator(lambda x: x[..., :2], (1, 2, 3), adjoint=lambda y: y)
    for wrong in (torch.zeros(4, 6), torch.full((4, 6), float("nan"))):
        with pytest.raises(ValueError, match="holds finite numbers and is not all zero"):
            MatrixOperator(wrong, (1, 2, 3))
