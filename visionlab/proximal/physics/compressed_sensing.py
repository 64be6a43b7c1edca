"""Compressed sensing with a subsampled randomised circulant matrix."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from typing_extensions import override

from visionlab.proximal.physics.base import Physics, as_weight


class CompressedSensing(Physics):
    """``A = S F^-1 diag(phase) F diag(signs)``: random signs, random filter, random subset.

    The filter's spectrum has unit modulus, so ``A A^T = I``: the norm is 1 and `solve` is
    closed-form. (Romberg, "Compressive sensing by random convolution", SIAM J. Imaging Sci. 2009;
    the official LPN code draws a Gaussian filter instead, whose norm is unknown.)

    Args:
        image_shape: ``(C, H, W)`` of one image; all channels are mixed.
        ratio: measurements over pixels, in (0, 1].
        seed: of signs, phases and subset.
    """

    signs: Tensor
    phase: Tensor
    rows: Tensor

    def __init__(self, image_shape: Sequence[int], *, ratio: float, seed: int = 0) -> None:
        super().__init__()
        if not 0 < ratio <= 1:
            raise ValueError(f"ratio is measurements over pixels, in (0, 1], got {ratio}")
        self.shape = tuple(int(s) for s in image_shape)
        if not self.shape or min(self.shape) < 1:
            raise ValueError(f"image_shape is (C, H, W), each at least 1, got {self.shape}")
        n = math.prod(self.shape)
        generator = torch.Generator().manual_seed(seed)
        signs = torch.randint(0, 2, (n,), generator=generator).double() * 2 - 1
        angle = torch.rand(n // 2 + 1, generator=generator, dtype=torch.float64) * 2 * math.pi
        angle[0] = 0.0  # a real filter has real gain at frequency 0 and, for even n, at the last
        if n % 2 == 0:
            angle[-1] = 0.0
        rows = torch.randperm(n, generator=generator)[: max(1, round(ratio * n))].sort().values
        self.register_buffer("signs", signs, persistent=False)
        self.register_buffer("phase", angle, persistent=False)
        self.register_buffer("rows", rows, persistent=False)

    @override
    def image_shape(self, y: Tensor) -> tuple[int, ...]:
        """The shape that the operator was made for."""
        return self.shape

    def _circulant(self, flat: Tensor, sign: float) -> Tensor:
        angle = (sign * self.phase).to(flat)
        spectrum = torch.fft.rfft(flat) * torch.polar(torch.ones_like(angle), angle)
        return torch.fft.irfft(spectrum, n=flat.shape[-1])

    @override
    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, m)``, m the rounded ``ratio * C * H * W``.

        Raises:
            ValueError: images of another shape.
        """
        if tuple(x.shape[1:]) != self.shape:
            raise ValueError(
                f"this operator was made for images of shape {self.shape}, got {tuple(x.shape[1:])}"
            )
        return self._circulant(x.flatten(1) * self.signs.to(x), 1.0)[:, self.rows]

    @override
    def adjoint(self, y: Tensor) -> Tensor:
        """``(B, m)`` to ``(B, C, H, W)``; also the right inverse, as ``A A^T = I``.

        Raises:
            ValueError: measurements of another number.
        """
        if y.shape[1:] != self.rows.shape:
            raise ValueError(
                f"expected measurements of shape (B, {len(self.rows)}), got {tuple(y.shape)}"
            )
        full = y.new_zeros(len(y), len(self.signs)).index_copy(1, self.rows, y)
        return (self._circulant(full, -1.0) * self.signs.to(y)).reshape(-1, *self.shape)

    @override
    def norm2(self, image_shape: tuple[int, ...]) -> float:
        """Exactly 1, as the rows are orthonormal."""
        return 1.0

    @override
    def solve(
        self,
        rhs: Tensor,
        rho: float | Tensor,
        *,
        start: Tensor | None = None,
        tolerance: float = 1e-6,
    ) -> Tensor:
        """Exact: ``(rhs - A^T A rhs / (1 + rho)) / rho``, since ``A^T A`` is a projection.

        Nothing is iterated: ``start`` and ``tolerance`` change nothing.
        """
        weight = as_weight(rho, rhs)
        return (rhs - self.normal(rhs) / (1 + weight)) / weight

    @override
    def initial(self, y: Tensor) -> Tensor:
        """The least-squares image of smallest norm, ``A^T y``."""
        return self.adjoint(y)
