"""Sparse-view parallel-beam tomography with an exact adjoint, and filtered back-projection."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from visionlab.proximal.physics.base import Physics
from visionlab.proximal.physics.krylov import norm2_nonnegative


class Tomography(Physics):
    """Line integrals of a square image over ``angles`` directions spread evenly over 180 degrees.

    Each ray is sampled once per row or column, whichever it crosses more steeply, with linear
    interpolation between two pixels (Joseph, IEEE Trans. Med. Imaging 1982). The operator is kept
    as a sparse matrix and its transpose, so the adjoint is exact to rounding and either product is
    one fused kernel. Measurements are ``(B, C, angles, detectors)``.

    Args:
        size: side N of the image in pixels; a pixel and a detector have width 1.
        angles: number of views.
        detectors: an odd number that covers the diagonal if not given.
        normalize: divide A by (a bound of) its norm, so that ``||A|| <= 1`` and a noise level
            means the same at every number of views. `scale` holds the factor.
    """

    scale: Tensor
    ray_index: Tensor
    ray_weight: Tensor
    ray_offsets: Tensor
    view_angles: Tensor

    def __init__(
        self, size: int, *, angles: int = 60, detectors: int | None = None, normalize: bool = True
    ) -> None:
        super().__init__()
        if size < 2 or angles < 1 or (detectors is not None and detectors < 1):
            raise ValueError(
                f"need size >= 2, angles >= 1, detectors >= 1; got {size}, {angles}, {detectors}"
            )
        self.size, self.angles = size, angles
        self.detectors = detectors or 2 * math.ceil(size / math.sqrt(2)) + 1
        view_angles = torch.arange(angles, dtype=torch.float64) * math.pi / angles
        self.register_buffer("view_angles", view_angles, persistent=False)
        self._store("ray", *self._joseph(view_angles), angles * self.detectors)
        rays = torch.repeat_interleave(
            torch.arange(angles * self.detectors), torch.diff(self.ray_offsets.long())
        )
        order = torch.argsort(self.ray_index.long(), stable=True)
        self._store("pixel", rays[order], self.ray_index.long()[order], self.ray_weight[order],
                    size * size, by=1)  # fmt: skip
        self.register_buffer("scale", torch.ones((), dtype=torch.float64), persistent=False)
        if normalize:
            bound = norm2_nonnegative(self.normal, (1, size, size))
            self.scale = torch.tensor(bound, dtype=torch.float64).rsqrt()

    def _joseph(self, view_angles: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """All non-zero entries, sorted by ray: ray, pixel, weight."""
        n = self.size
        centre, lines = (n - 1) / 2, torch.arange(n, dtype=torch.float64)
        t = torch.arange(self.detectors, dtype=torch.float64) - (self.detectors - 1) / 2
        parts: list[tuple[Tensor, Tensor, Tensor]] = []
        for view, angle in enumerate(view_angles.tolist()):
            c, s = math.cos(angle), math.sin(angle)
            by_row = abs(c) >= abs(s)
            # along row i, y = centre - i and x = (t - y s) / c; along column j, x = j - centre
            if by_row:
                cross = (t[:, None] - (centre - lines) * s) / c + centre
            else:
                cross = centre - (t[:, None] - (lines - centre) * c) / s
            low = cross.floor()
            for tap, weight in ((low, low + 1 - cross), (low + 1, cross - low)):
                ray, line = torch.nonzero((tap >= 0) & (tap < n) & (weight > 0), as_tuple=True)
                along = tap[ray, line].long()
                pixel = line * n + along if by_row else along * n + line
                length = weight[ray, line] / max(abs(c), abs(s))
                parts.append((ray + view * self.detectors, pixel, length))
        ray, pixel, weight = (torch.cat(p) for p in zip(*parts))
        order = torch.argsort(ray, stable=True)
        return ray[order], pixel[order], weight[order]

    def _store(
        self, name: str, ray: Tensor, pixel: Tensor, weight: Tensor, rows: int, *, by: int = 0
    ) -> None:
        """Compressed rows: row r owns the entries ``offsets[r]`` to ``offsets[r + 1]``."""
        row, column = (ray, pixel) if by == 0 else (pixel, ray)
        offsets = F.pad(torch.bincount(row, minlength=rows).cumsum(0), (1, 0))
        self.register_buffer(f"{name}_index", column.int(), persistent=False)
        self.register_buffer(f"{name}_weight", weight, persistent=False)
        self.register_buffer(f"{name}_offsets", offsets.int(), persistent=False)

    def _rows(self, name: str, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        index, weight, offsets = (
            getattr(self, f"{name}_{part}") for part in ("index", "weight", "offsets")
        )
        return index, weight.to(like), offsets

    @override
    def image_shape(self, y: Tensor) -> tuple[int, ...]:
        """``(C, N, N)`` for sinograms ``(B, C, angles, detectors)``."""
        return (y.shape[1], self.size, self.size)

    @override
    def forward(self, x: Tensor) -> Tensor:
        """Line integrals times `scale`: ``(B, C, N, N)`` to ``(B, C, angles, detectors)``.

        Raises:
            ValueError: images of another size.
        """
        if x.ndim != 4 or tuple(x.shape[-2:]) != (self.size, self.size):
            raise ValueError(
                f"this scanner sees images of shape (B, C, {self.size}, {self.size}), got "
                f"{tuple(x.shape)}"
            )
        flat = x.reshape(-1, self.size**2).T
        y = _SparseProduct.apply(flat, self._rows("ray", x), self._rows("pixel", x))
        return (y.T * self.scale.to(x)).reshape(*x.shape[:2], self.angles, self.detectors)

    @override
    def adjoint(self, y: Tensor) -> Tensor:
        """Back-projection, unfiltered: ``(B, C, angles, detectors)`` to ``(B, C, N, N)``.

        Raises:
            ValueError: sinograms of another size.
        """
        if y.ndim != 4 or tuple(y.shape[-2:]) != (self.angles, self.detectors):
            raise ValueError(
                f"expected sinograms of shape (B, C, {self.angles} views, {self.detectors} "
                f"detectors), got {tuple(y.shape)}"
            )
        flat = y.reshape(-1, self.angles * self.detectors).T
        x = _SparseProduct.apply(flat, self._rows("pixel", y), self._rows("ray", y))
        return (x.T * self.scale.to(y)).reshape(*y.shape[:2], self.size, self.size)

    @override
    def _bound_norm2(
        self, image_shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
    ) -> float:
        return norm2_nonnegative(
            self.normal, (1, self.size, self.size), dtype=dtype, device=device
        )  # channels do not mix

    def fbp(self, y: Tensor, *, cutoff: float | None = None) -> Tensor:
        """Filtered back-projection (Kak and Slaney, 1988, section 3.3).

        Args:
            y: sinograms ``(B, C, angles, detectors)``.
            cutoff: frequency, as a fraction of the highest one, where a Hann window ends;
                no window (the plain ramp) if not given.
        """
        length = 2 ** math.ceil(math.log2(2 * self.detectors))
        k = torch.arange(length, dtype=torch.float64)
        k = torch.minimum(k, length - k)
        ramp = torch.where(k % 2 == 1, -1 / (math.pi * k.clamp_min(1)) ** 2, 0.0)
        ramp[0] = 0.25
        response = torch.fft.rfft(ramp).real
        if cutoff is not None:
            if not 0 < cutoff <= 1:
                raise ValueError(f"cutoff is a fraction in (0, 1], got {cutoff}")
            f = torch.arange(length // 2 + 1, dtype=torch.float64) / (length // 2) / cutoff
            response = response * torch.where(f < 1, 0.5 + 0.5 * torch.cos(math.pi * f), 0.0)
        spectrum = torch.fft.rfft(y, n=length) * response.to(y)
        filtered = torch.fft.irfft(spectrum, n=length)[..., : self.detectors]
        # A and y carry `scale` each, and A^T carries it once more
        return self.adjoint(filtered) * (math.pi / self.angles / self.scale.to(y) ** 2)

    @override
    def initial(self, y: Tensor) -> Tensor:
        """Filtered back-projection with a Hann window."""
        return self.fbp(y, cutoff=0.5)


class _SparseProduct(torch.autograd.Function):
    """Sparse matrix times dense columns ``(n, k)``; the gradient is the product with its twin."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, rows: tuple[Tensor, ...], transposed: tuple[Tensor, ...]
    ) -> Tensor:
        ctx.rows, ctx.transposed = rows, transposed
        index, weight, offsets = rows
        return F.embedding_bag(
            index,
            x.contiguous(),
            offsets,
            per_sample_weights=weight,
            mode="sum",
            include_last_offset=True,
        )

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return _SparseProduct.apply(grads[0], ctx.transposed, ctx.rows), None, None
