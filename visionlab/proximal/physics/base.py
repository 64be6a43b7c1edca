"""What a linear measurement must offer, and what every one of them gets for free."""

import math

import torch
from torch import Tensor, nn

from visionlab.proximal.physics.krylov import conjugate_gradients, norm2_lanczos, per_sample


class Physics(nn.Module):
    """A linear map A from images ``(B, C, H, W)`` to measurements ``(B, ...)``.

    A subclass writes `forward`, `adjoint` and `image_shape`; it replaces `norm2` and `solve` where
    a closed form exists. All methods work on batches, on any device in float32 and float64,
    and treat each sample alone. Both maps are differentiable.

    Raises:
        TypeError: images that are no floats, when called.
    """

    def __call__(self, x: Tensor) -> Tensor:
        """``A x``, for floats: in integers a fractional kernel or mask would round to nothing."""
        check_floats(x, name="images")
        return super().__call__(x)

    def forward(self, x: Tensor) -> Tensor:
        """``A x``."""
        raise NotImplementedError

    def adjoint(self, y: Tensor) -> Tensor:
        """``A^T y``, exact: ``<A x, y> = <x, A^T y>`` up to rounding."""
        raise NotImplementedError

    def image_shape(self, y: Tensor) -> tuple[int, ...]:
        """Shape of one image, without the batch, that belongs to the measurements ``y``."""
        raise NotImplementedError

    def normal(self, x: Tensor) -> Tensor:
        """``A^T A x``."""
        return self.adjoint(self(x))

    def norm2(self, image_shape: tuple[int, ...]) -> float:
        """An upper bound of ``||A||^2`` for images of this shape (here: Lanczos, see `krylov`)."""
        cache: dict[tuple[int, ...], float] = self.__dict__.setdefault("_norm2_cache", {})
        key = tuple(image_shape)
        if key not in cache:
            dtype, device = self._precision()
            with torch.no_grad():
                cache[key] = self._bound_norm2(key, dtype, device)
        return cache[key]

    def _bound_norm2(
        self, image_shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
    ) -> float:
        return norm2_lanczos(self.normal, image_shape, dtype=dtype, device=device)

    def _precision(self) -> tuple[torch.dtype, torch.device]:
        """Float type and device of the operator's own numbers; float64 on the CPU without any."""
        for buffer in self.buffers():
            if buffer.is_floating_point():
                return buffer.dtype, buffer.device
        return torch.float64, torch.device("cpu")

    def solve(
        self,
        rhs: Tensor,
        rho: float | Tensor,
        *,
        start: Tensor | None = None,
        tolerance: float = 1e-6,
    ) -> Tensor:
        """``(A^T A + rho I)^{-1} rhs``; here by conjugate gradients.

        Args:
            rho: positive; a number or one per sample ``(B,)``.
            start: a guess, used by iterative versions only.
            tolerance: residual norm over that of ``rhs``, used by iterative versions only.
        """
        weight = as_weight(rho, rhs)
        return conjugate_gradients(
            lambda x: self.normal(x) + weight * x, rhs, start=start, tolerance=tolerance
        )

    def initial(self, y: Tensor) -> Tensor:
        """A cheap first image: the regularised least-squares answer with a small weight."""
        weight = 0.05 * self.norm2(self.image_shape(y))
        return self.solve(self.adjoint(y), weight, tolerance=1e-3)

    def data_term(self, x: Tensor, y: Tensor) -> Tensor:
        """``h(x) = 1/2 ||A x - y||^2`` of each sample, ``(B,)``."""
        return 0.5 * (self(x) - y).flatten(1).square().sum(1)

    def gradient(self, x: Tensor, y: Tensor) -> Tensor:
        """Gradient of `data_term`: ``A^T (A x - y)``."""
        return self.adjoint(self(x) - y)


def as_weight(rho: float | Tensor, like: Tensor) -> float | Tensor:
    """A number, or ``(B,)`` numbers shaped to broadcast over the batch ``like``; all positive.

    Raises:
        ValueError: a weight that is not positive and finite, or whose count is not the batch's.
    """
    if isinstance(rho, Tensor) and rho.ndim > 0:
        if rho.shape != (len(like),):
            raise ValueError(
                f"one weight per sample is a ({len(like)},) tensor, got {tuple(rho.shape)}"
            )
        if not bool(((rho > 0) & torch.isfinite(rho)).all()):
            raise ValueError(f"weights are positive numbers, got {rho.tolist()}")
        return per_sample(rho.to(like), like)
    value = float(rho)
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"a weight is a positive number, got {value}")
    return value


def check_adjoint(x: Tensor, y: Tensor, ax: Tensor, aty: Tensor, *, allowed: float) -> None:
    """The dot test: ``<A x, y> = <x, A^T y>``, up to ``allowed`` of the sizes.

    Raises:
        ValueError: it fails, or ``A^T y`` has not the shape of ``x``.
    """
    if aty.shape != x.shape:
        raise ValueError(
            f"the adjoint gives images of shape {tuple(aty.shape[1:])}, not {tuple(x.shape[1:])}"
        )
    off = abs(float((ax * y).sum()) - float((x * aty).sum()))
    if not off <= allowed * float(ax.norm() * y.norm()):
        raise ValueError(
            f"the adjoint is not the transpose of the operator: the dot test is off by {off:.2g}, "
            "so no descent could be guaranteed"
        )


def check_floats(x: Tensor, *, name: str) -> None:
    """Raise TypeError for what is no float tensor."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name}: expected a torch tensor, got {type(x).__name__}")
    if not x.is_floating_point():
        raise TypeError(
            f"{name}: expected floats (images in [0, 1]), got {x.dtype}; "
            "divide by 255 first: x.float() / 255"
        )


def check_images(x: Tensor, *, name: str = "images", ndim: int | None = 4) -> Tensor:
    """Stop what is no batch of finite float images.

    Raises:
        TypeError: not a float tensor.
        ValueError: wrong number of axes, an empty batch, NaN or infinity.
    """
    check_floats(x, name=name)
    if ndim is not None and x.ndim != ndim:
        raise ValueError(f"{name}: expected (B, C, H, W), got shape {tuple(x.shape)}")
    if x.numel() == 0:
        raise ValueError(f"{name}: empty, shape {tuple(x.shape)}")
    if not bool(torch.isfinite(x).all()):
        bad = int((~torch.isfinite(x)).sum())
        raise ValueError(f"{name}: {bad} of {x.numel()} values are NaN or infinite")
    return x


def add_noise(y: Tensor, std: float, *, generator: torch.Generator) -> Tensor:
    """White Gaussian noise of standard deviation ``std``, drawn on the CPU and then moved.

    The same generator state gives the same noise on every device.
    """
    noise = torch.randn(y.shape, generator=generator, dtype=torch.float64)
    return y + std * noise.to(y)
