"""Any other linear map: given by a function, or by a matrix of any shape."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from typing_extensions import override

from visionlab.proximal.physics.base import Physics, as_weight, check_adjoint


class FunctionOperator(Physics):
    """A linear map given as a differentiable function; its adjoint by reverse-mode autograd.

    Args:
        function: ``(B, *image_shape) -> (B, ...)``, linear and sample by sample. Linearity is
            probed once.
        image_shape: of one image.
        adjoint: its transpose; derived from the function if not given.

    Raises:
        ValueError: the function is not linear, is zero, or ``adjoint`` is not its transpose.
    """

    def __init__(
        self,
        function: Callable[[Tensor], Tensor],
        image_shape: Sequence[int],
        *,
        adjoint: Callable[[Tensor], Tensor] | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        self.function = function
        self.shape = tuple(int(s) for s in image_shape)
        self.transpose = adjoint
        # tells norm2 where and in which precision the function works
        self.register_buffer("probe", torch.zeros((), device=device, dtype=dtype), persistent=False)
        generator = torch.Generator().manual_seed(0)
        a, b = torch.randn(2, 1, *self.shape, generator=generator).to(device, dtype).unbind()
        with torch.no_grad():
            fa, fb = function(a), function(b)
            error = (function(2 * a + b) - 2 * fa - fb).norm()
            scale = fa.norm() + fb.norm()
        allowed = 1e3 * torch.finfo(dtype).eps
        if not float(error) <= allowed * float(scale):
            raise ValueError(
                "the function is not linear: f(2a + b) differs from 2 f(a) + f(b) by "
                f"{float(error):.3g} at scale {float(scale):.3g}"
            )
        if not float(scale) > 0:
            raise ValueError("the function maps every image to zero: nothing is measured")
        if adjoint is not None:
            check_adjoint(a, fb, fa, adjoint(fb), allowed=allowed)

    @override
    def image_shape(self, y: Tensor) -> tuple[int, ...]:
        """The shape that the operator was made for."""
        return self.shape

    @override
    def forward(self, x: Tensor) -> Tensor:
        """What the function makes of ``(B, *image_shape)``.

        Raises:
            ValueError: images of another shape.
        """
        if tuple(x.shape[1:]) != self.shape:
            raise ValueError(
                f"this operator was made for images of shape {self.shape}, got {tuple(x.shape[1:])}"
            )
        return self.function(x)

    @override
    def adjoint(self, y: Tensor) -> Tensor:
        """The given transpose, or the pullback of the function that torch derives."""
        if self.transpose is not None:
            return self.transpose(y)
        zeros = torch.zeros(len(y), *self.shape, dtype=y.dtype, device=y.device)
        pullback = torch.func.vjp(self.function, zeros)[1]
        return pullback(y)[0]


class MatrixOperator(Physics):
    """A dense matrix ``(m, n)`` applied to flattened images, m and n unrelated.

    Args:
        matrix: ``(m, n)`` with ``n = prod(image_shape)``.
        image_shape: of one image.

    Raises:
        ValueError: the matrix has another number of columns than the image has values, is zero or
            holds NaN or infinity.
    """

    matrix: Tensor
    eigenvalues: Tensor
    basis: Tensor

    def __init__(
        self, matrix: Tensor | Sequence[Sequence[float]], image_shape: Sequence[int]
    ) -> None:
        super().__init__()
        m = torch.as_tensor(matrix, dtype=torch.float64)
        self.shape = tuple(int(s) for s in image_shape)
        if m.ndim != 2 or m.shape[1] != math.prod(self.shape):
            raise ValueError(
                f"an image of shape {self.shape} has {math.prod(self.shape)} values, so the matrix "
                f"must be (m, {math.prod(self.shape)}); got {tuple(m.shape)}"
            )
        if not bool(torch.isfinite(m).all()) or not bool(m.any()):
            raise ValueError("a matrix holds finite numbers and is not all zero")
        self.register_buffer("matrix", m, persistent=False)
        values, basis = torch.linalg.eigh(m.T @ m)
        self.register_buffer("eigenvalues", values.clamp_min(0), persistent=False)
        self.register_buffer("basis", basis, persistent=False)

    @override
    def image_shape(self, y: Tensor) -> tuple[int, ...]:
        """The shape that the matrix was made for."""
        return self.shape

    @override
    def forward(self, x: Tensor) -> Tensor:
        """``(B, *image_shape)`` to ``(B, m)``.

        Raises:
            ValueError: images of another shape.
        """
        if tuple(x.shape[1:]) != self.shape:
            raise ValueError(
                f"this matrix was made for images of shape {self.shape}, got {tuple(x.shape[1:])}"
            )
        return x.flatten(1) @ self.matrix.to(x).T

    @override
    def adjoint(self, y: Tensor) -> Tensor:
        """``(B, m)`` to ``(B, *image_shape)``.

        Raises:
            ValueError: measurements of another number.
        """
        if y.shape[1:] != self.matrix.shape[:1]:
            raise ValueError(
                f"expected measurements of shape (B, {len(self.matrix)}), got {tuple(y.shape)}"
            )
        return (y @ self.matrix.to(y)).reshape(-1, *self.shape)

    @override
    def norm2(self, image_shape: tuple[int, ...]) -> float:
        """Largest eigenvalue of ``A^T A``."""
        return float(self.eigenvalues.max())

    @override
    def solve(
        self,
        rhs: Tensor,
        rho: float | Tensor,
        *,
        start: Tensor | None = None,
        tolerance: float = 1e-6,
    ) -> Tensor:
        """Exact, from the eigenvectors of ``A^T A``, which are computed once.

        Nothing is iterated: ``start`` and ``tolerance`` change nothing.
        """
        basis, flat = self.basis.to(rhs), rhs.flatten(1)
        weight = as_weight(rho, flat)
        return ((flat @ basis) / (self.eigenvalues.to(rhs) + weight) @ basis.T).reshape(rhs.shape)
