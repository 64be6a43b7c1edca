"""Missing pixels."""

from collections.abc import Sequence

import torch
from torch import Tensor
from typing_extensions import override

from visionlab.proximal.physics.base import Physics, as_weight


class Inpainting(Physics):
    """``A = diag(mask)``: pixels where the mask is 0 are lost.

    Args:
        mask: ``(H, W)`` or ``(C, H, W)``; 1 or True where a pixel is seen.

    Raises:
        ValueError: wrong number of axes, values outside [0, 1], nothing seen.
    """

    mask: Tensor

    def __init__(self, mask: Tensor | Sequence[Sequence[float]]) -> None:
        super().__init__()
        m = torch.as_tensor(mask).to(torch.float64)
        if m.ndim not in (2, 3) or not bool(((m >= 0) & (m <= 1)).all()) or not bool(m.any()):
            raise ValueError(
                "a mask is (H, W) or (C, H, W) with values in [0, 1] and some pixel seen, "
                f"got shape {tuple(m.shape)}"
            )
        self.register_buffer("mask", m, persistent=False)

    @classmethod
    def random(cls, image_shape: Sequence[int], *, keep: float, seed: int = 0) -> "Inpainting":
        """Keep each pixel (all its channels) with probability ``keep``."""
        if not 0 < keep <= 1:
            raise ValueError(f"keep is a probability in (0, 1], got {keep}")
        generator = torch.Generator().manual_seed(seed)
        return cls(torch.rand(*image_shape[-2:], generator=generator) < keep)

    @override
    def image_shape(self, y: Tensor) -> tuple[int, ...]:
        """``(C, H, W)`` as measured: lost pixels are zeros, not left out."""
        return tuple(y.shape[1:])

    def _check_size(self, x: Tensor) -> None:
        size = tuple(self.mask.shape[-2:])
        if tuple(x.shape[-2:]) != size:
            raise ValueError(f"the mask is {size}, the image {tuple(x.shape[-2:])}")

    @override
    def forward(self, x: Tensor) -> Tensor:
        """The images times the mask, ``(B, C, H, W)``.

        Raises:
            ValueError: an image of another size than the mask.
        """
        self._check_size(x)
        return x * self.mask.to(x)

    @override
    def adjoint(self, y: Tensor) -> Tensor:
        """The same product: a diagonal is its own transpose."""
        return self.forward(y)

    @override
    def norm2(self, image_shape: tuple[int, ...]) -> float:
        """Square of the largest mask value: exact."""
        return float(self.mask.max().square())

    @override
    def solve(
        self,
        rhs: Tensor,
        rho: float | Tensor,
        *,
        start: Tensor | None = None,
        tolerance: float = 1e-6,
    ) -> Tensor:
        """Exact: a division by ``mask^2 + rho`` in each pixel.

        Nothing is iterated: ``start`` and ``tolerance`` change nothing.
        """
        return rhs / (self.mask.to(rhs).square() + as_weight(rho, rhs))

    @override
    def initial(self, y: Tensor) -> Tensor:
        """Unseen pixels start at the mean of the seen ones, channel by channel."""
        self._check_size(y)
        seen = (self.mask > 0).to(y).expand(y.shape[1:])
        mean = (y * seen).sum((-2, -1), keepdim=True) / seen.sum((-2, -1), keepdim=True).clamp_min(
            1
        )
        return torch.where(seen > 0, y, mean)
