"""Classical restorations to stand beside a learned one: total variation, Wiener, least squares."""

import math

import torch
from torch import Tensor

from visionlab.proximal.physics.base import Physics, as_weight, check_images
from visionlab.proximal.physics.blur import CircularBlur

# ||grad||^2 of forward differences in two dimensions is below 8
_GRADIENT_NORM2 = 8.0


def gradient(x: Tensor) -> Tensor:
    """Forward differences ``(B, C, H, W) -> (2, B, C, H, W)``, zero at the far borders."""
    g = x.new_zeros(2, *x.shape)
    g[0, ..., :-1, :] = x[..., 1:, :] - x[..., :-1, :]
    g[1, ..., :, :-1] = x[..., :, 1:] - x[..., :, :-1]
    return g


def gradient_adjoint(p: Tensor) -> Tensor:
    """Transpose of `gradient` (minus the divergence)."""
    x = p.new_zeros(p.shape[1:])
    x[..., 1:, :] += p[0, ..., :-1, :]
    x[..., :-1, :] -= p[0, ..., :-1, :]
    x[..., :, 1:] += p[1, ..., :, :-1]
    x[..., :, :-1] -= p[1, ..., :, :-1]
    return x


def total_variation(x: Tensor) -> Tensor:
    """Isotropic total variation, channel by channel, summed: ``(B,)``."""
    return gradient(x).square().sum(0).sqrt().flatten(1).sum(1)


def _project(p: Tensor, radius: float | Tensor) -> Tensor:
    return p / (p.square().sum(0).sqrt() / radius).clamp_min(1.0)


@torch.no_grad()
def tv_denoise(y: Tensor, weight: float | Tensor, *, iterations: int = 100) -> Tensor:
    """``argmin 1/2 ||x - y||^2 + weight TV(x)``, the ROF model.

    Accelerated projected gradient on the dual (Beck, Teboulle, IEEE Trans. Image Process. 2009);
    every sample takes all iterations.

    Args:
        y: images ``(B, C, H, W)``.
        weight: positive; a number or one per sample ``(B,)``.
    """
    check_images(y)
    radius = as_weight(weight, y)
    p = y.new_zeros(2, *y.shape)
    ahead, t = p, 1.0
    for _ in range(iterations):
        step = gradient(y - gradient_adjoint(ahead)) / _GRADIENT_NORM2
        p_new = _project(ahead + step, radius)
        t_new = (1 + (1 + 4 * t * t) ** 0.5) / 2
        ahead = p_new + ((t - 1) / t_new) * (p_new - p)
        p, t = p_new, t_new
    return y - gradient_adjoint(p)


@torch.no_grad()
def tv_restore(
    y: Tensor,
    physics: Physics,
    weight: float | Tensor,
    *,
    iterations: int = 300,
    start: Tensor | None = None,
) -> Tensor:
    """``argmin 1/2 ||A x - y||^2 + weight TV(x)`` by the primal-dual method of Chambolle and Pock.

    The data term enters through `Physics.solve`, so the step is not limited by ``||A||``
    (J. Math. Imaging Vis. 2011, Algorithm 1); every sample takes all iterations.

    Args:
        y: measurements ``(B, ...)``.
        weight: positive; a number or one per sample ``(B,)``.
        start: first image; ``physics.initial(y)`` if not given.
    """
    check_images(y, name="measurements", ndim=None)
    x = physics.initial(y) if start is None else start
    radius = as_weight(weight, x)
    back = physics.adjoint(y)
    # dual values are of the size of the weight and primal ones of the size of 1: balance the steps
    balance = as_weight(weight, x) * 10.0
    sigma = balance / _GRADIENT_NORM2**0.5
    tau = 1 / (balance * _GRADIENT_NORM2**0.5)
    rho = 1 / tau if isinstance(tau, float) else (1 / tau).flatten()
    p, ahead = x.new_zeros(2, *x.shape), x
    for _ in range(iterations):
        p = _project(p + sigma * gradient(ahead), radius)
        x_new = physics.solve(back + x / tau - gradient_adjoint(p), rho, start=x, tolerance=1e-4)
        x, ahead = x_new, 2 * x_new - x
    return x


def power_spectrum(images: Tensor) -> Tensor:
    """Mean power of clean images at each frequency of ``rfft2``, ``(H, W // 2 + 1)``.

    The mean over images and channels of ``|FFT|^2 / (H W)``, so that white noise of standard
    deviation s has power ``s^2``.

    Args:
        images: ``(N, C, H, W)`` of the size to restore.
    """
    power = torch.fft.rfft2(images).abs().square().mean((0, 1))
    return power / (images.shape[-2] * images.shape[-1])


def wiener(y: Tensor, physics: CircularBlur, *, noise: float, spectrum: Tensor) -> Tensor:
    """The linear filter of least mean squared error for images of the given power spectrum.

    ``conj(H) Y / (|H|^2 + s^2 / S)``; a constant in place of ``s^2 / S`` can do worse than nothing.

    Args:
        y: blurred images ``(B, C, H, W)``.
        noise: standard deviation s of the measurement noise.
        spectrum: S, from `power_spectrum` of images of the same size.

    Raises:
        TypeError: the physics is no circular blur.
        ValueError: the spectrum is of another size, or ``noise`` is not positive.
    """
    if not isinstance(physics, CircularBlur):
        raise TypeError(
            f"the Wiener filter needs a CircularBlur, got {type(physics).__name__}; use "
            "least_squares instead"
        )
    if not 0 < noise < math.inf:
        raise ValueError(f"noise is a positive standard deviation, got {noise}")
    transfer = physics.transfer(y.shape[-2], y.shape[-1])
    if spectrum.shape != transfer.shape:
        raise ValueError(
            f"the spectrum is {tuple(spectrum.shape)}, images of this size need "
            f"{tuple(transfer.shape)}; compute it from images of the size to restore"
        )
    power = spectrum.double().clamp_min(1e-12)
    gain = transfer.conj() / (transfer.abs().square() + noise**2 / power)
    complex_type = torch.complex128 if y.dtype == torch.float64 else torch.complex64
    filtered = torch.fft.rfft2(y) * gain.to(y.device, complex_type)
    return torch.fft.irfft2(filtered, s=y.shape[-2:])


def least_squares(y: Tensor, physics: Physics, weight: float) -> Tensor:
    """``argmin 1/2 ||A x - y||^2 + weight/2 ||x||^2``."""
    return physics.solve(physics.adjoint(y), weight)
