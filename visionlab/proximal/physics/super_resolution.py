"""Super-resolution: circular blur, then every s-th pixel."""

from collections.abc import Sequence

import torch
from torch import Tensor
from typing_extensions import override

from visionlab.proximal.physics.base import Physics, as_weight
from visionlab.proximal.physics.blur import CircularBlur, gaussian_kernel


class SuperResolution(Physics):
    """Blur and keep every ``factor``-th pixel in both directions.

    `solve` is closed-form: in Fourier space ``A A^T`` averages the squared gain over the
    ``factor^2`` aliases of each low frequency (Zhao, Wei, Basarab, Dobigeon, Kouame, Tourneret,
    "Fast single image super-resolution using a new analytical solution for l2-l2 problems", IEEE
    Trans. Image Process. 2016, Eq. 14).

    Args:
        factor: at least 2; the image's sides are multiples of it.
        kernel: ``(K, L)``, both odd; a Gaussian of ``0.4 * factor`` pixels if not given.
    """

    def __init__(
        self, factor: int, kernel: Tensor | Sequence[Sequence[float]] | None = None
    ) -> None:
        super().__init__()
        if not (factor >= 2 and float(factor).is_integer()):
            raise ValueError(f"factor is a whole number of at least 2, got {factor}")
        self.factor = int(factor)
        self.blur = CircularBlur(gaussian_kernel(0.4 * factor) if kernel is None else kernel)

    @override
    def image_shape(self, y: Tensor) -> tuple[int, ...]:
        """``(C, s H, s W)`` for measurements ``(B, C, H, W)`` and the factor s."""
        return (*y.shape[1:-2], y.shape[-2] * self.factor, y.shape[-1] * self.factor)

    def _check(self, height: int, width: int) -> None:
        if height % self.factor or width % self.factor:
            raise ValueError(
                f"an image of {height}x{width} is not a multiple of the factor {self.factor}; "
                "crop it first"
            )

    @override
    def forward(self, x: Tensor) -> Tensor:
        """Blurred, then thinned: ``(B, C, H, W)`` to ``(B, C, H / s, W / s)``.

        Raises:
            ValueError: a side that is no multiple of the factor s.
        """
        self._check(*x.shape[-2:])
        return self.blur(x)[..., :: self.factor, :: self.factor]

    @override
    def adjoint(self, y: Tensor) -> Tensor:
        """Zeros between the pixels, then the blur's transpose; sides grow by the factor."""
        x = y.new_zeros(*y.shape[:-2], *self.image_shape(y)[-2:])
        x[..., :: self.factor, :: self.factor] = y
        return self.blur.adjoint(x)

    def _aliased_gain(self, height: int, width: int) -> Tensor:
        """Eigenvalues of ``A A^T``, ``(H / s, W / s)``, at the frequencies of the small image."""
        self._check(height, width)
        s = self.factor
        kernel = torch.fft.irfft2(self.blur.transfer(height, width), s=(height, width))
        gain = torch.fft.fft2(kernel).abs().square()
        return gain.reshape(s, height // s, s, width // s).mean((0, 2))

    @override
    def norm2(self, image_shape: tuple[int, ...]) -> float:
        """Largest eigenvalue of ``A A^T``: exact."""
        return float(self._aliased_gain(*image_shape[-2:]).max())

    @override
    def solve(
        self,
        rhs: Tensor,
        rho: float | Tensor,
        *,
        start: Tensor | None = None,
        tolerance: float = 1e-6,
    ) -> Tensor:
        """Exact, by Woodbury over the aliases of each frequency (Zhao et al., Eq. 14).

        Nothing is iterated: ``start`` and ``tolerance`` change nothing.
        """
        # Woodbury: (A^T A + rho)^-1 = (I - A^T (A A^T + rho)^-1 A) / rho
        weight = as_weight(rho, rhs)
        gain = self._aliased_gain(*rhs.shape[-2:]).to(rhs)
        small = torch.fft.ifft2(torch.fft.fft2(self(rhs)) / (gain + weight)).real
        return (rhs - self.adjoint(small)) / weight
