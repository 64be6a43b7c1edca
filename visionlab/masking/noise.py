"""Gaussian noise fields with a given spectrum over a grid of patches.

Two exact ways to draw the same law, chosen by size:

* **root**, up to 1,024 patches: ``z @ S`` with S the symmetric root of the L x L covariance. One
  small matrix product, no padding, no crop. The symmetric root is unique; any other would depend
  on the LAPACK build.
* **separable**, larger grids: the filter's kernel is split by SVD, ``sum_k a_k b_k^T`` (a Gaussian
  has one term, the default green three), so a field is ``sum_k A_k X B_k^T`` with banded A_k, B_k
  and padded noise X.

Boundary ``plane`` cuts the grid out of an endless field; ``torus`` wraps around, which makes every
patch visible equally often. The two differ in law for red and purple: never compare runs across
them.
"""

from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from visionlab.masking.keys import Draws
from visionlab.masking.spectrum import Array, Spectrum, White, frequency_plane

Boundary = Literal["plane", "torus"]

ROOT_UP_TO = 1024  # patches; beyond, the eigenvalues take seconds
_KERNEL_TAIL = 1e-6  # share of the filter's energy that the separable way may cut off
_MATRIX_SCALE = 1 << 18  # exact draws: matrices as integers on this scale


class NoiseField:
    """Draws (B, L) fields of one spectrum; the largest values mark the visible patches.

    Args:
        spectrum: the colour.
        grid: (H, W) patches.
        boundary: ``plane`` or ``torus``.
        method: ``root``, ``separable``, or None for the choice by size.

    With indexed draws the field is computed in integers held by float64, so it is the same to the
    last bit for any batch size and on any device.
    """

    def __init__(
        self,
        spectrum: Spectrum,
        grid: tuple[int, int],
        *,
        boundary: Boundary = "plane",
        method: Literal["root", "separable"] | None = None,
    ) -> None:
        if boundary not in ("plane", "torus"):
            raise ValueError(f"the boundary is 'plane' or 'torus', got {boundary!r}")
        self.spectrum, self.grid, self.boundary = spectrum, grid, boundary
        small = grid[0] * grid[1] <= ROOT_UP_TO
        self.method = method or ("root" if small else "separable")

    def sample(self, draws: Draws) -> Tensor:
        """One field per row, (B, L)."""
        if isinstance(self.spectrum, White):
            return draws.uniform(self.grid[0] * self.grid[1])  # same ranks, and no product
        key = (self.spectrum, self.grid, self.boundary, str(draws.device), draws.exact)
        with torch.autocast(draws.device.type, enabled=False):
            field = _by_root(draws, *key) if self.method == "root" else _by_kernel(draws, *key)
        return _break_ties(field) if draws.exact else field


def _by_root(draws: Draws, *key: object) -> Tensor:
    root = _root_on(*key)
    noise = draws.normal(len(root)).to(root.dtype)
    return noise @ root


def _by_kernel(draws: Draws, *key: object) -> Tensor:
    left, right = _factors_on(*key)  # (terms, H, M), (terms, W, N)
    rows, columns = left.shape[2], right.shape[2]
    noise = draws.normal(rows * columns).view(-1, 1, rows, columns).to(left.dtype)
    half = noise @ right.mT
    if draws.exact:  # exact so far; rounded once, so that the second product is exact too
        half = torch.round(half / _MATRIX_SCALE)
    return (left @ half).sum(1).flatten(1)


def _break_ties(field: Tensor) -> Tensor:
    """Order equal integers by place: which of two ties top-k takes may differ between devices."""
    patches = field.shape[1]
    return field + torch.arange(patches, device=field.device, dtype=field.dtype) / (2 * patches)


@lru_cache(maxsize=64)
def _root_on(
    spectrum: Spectrum, grid: tuple[int, int], boundary: Boundary, device: str, exact: bool
) -> Tensor:
    root = _torus_root(spectrum, grid) if boundary == "torus" else _plane_root(spectrum, grid)
    return _matrix_on(torch.from_numpy(root), device, exact)


@lru_cache(maxsize=64)
def _factors_on(
    spectrum: Spectrum, grid: tuple[int, int], boundary: Boundary, device: str, exact: bool
) -> tuple[Tensor, Tensor]:
    left, right = separable_factors(spectrum, grid, boundary)
    return tuple(_matrix_on(torch.from_numpy(m), device, exact) for m in (left, right))  # type: ignore[return-value]


def _matrix_on(matrix: Tensor, device: str, exact: bool) -> Tensor:
    if exact:
        return torch.round(matrix * _MATRIX_SCALE).to(device)
    # on CUDA float64 as well: the product is tiny, and TF32 would round the scores to ten bits
    return matrix.to(device, torch.float64 if device.startswith("cuda") else torch.float32)


@lru_cache(maxsize=64)
def covariance(spectrum: Spectrum, grid: tuple[int, int], boundary: Boundary = "plane") -> Array:
    """Covariance of the field between all pairs of patches, (L, L), unit variance."""
    if boundary == "torus":
        power = _amplitude(spectrum, *grid) ** 2
    else:
        side = _plane_side(grid)
        power = _amplitude(spectrum, side, side) ** 2
    correlation = np.fft.ifft2(power).real
    return _between_patches(correlation / correlation[0, 0], grid)


def _plane_root(spectrum: Spectrum, grid: tuple[int, int]) -> Array:
    values, vectors = np.linalg.eigh(covariance(spectrum, grid))
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T  # rounding leaves -1e-14 at worst


def _torus_root(spectrum: Spectrum, grid: tuple[int, int]) -> Array:
    """On a torus the root is circulant with the amplitude |H| itself: no eigenvalues needed."""
    amplitude = np.abs(_amplitude(spectrum, *grid))
    kernel = np.fft.ifft2(amplitude / np.sqrt(np.mean(amplitude**2))).real
    return _between_patches(kernel, grid)


def _between_patches(table: Array, grid: tuple[int, int]) -> Array:
    """M[i, j] = table[p_i - p_j], wrapped."""
    rows, columns = (axis.ravel() for axis in np.indices(grid))
    return table[rows[:, None] - rows[None], columns[:, None] - columns[None]]


def _plane_side(grid: tuple[int, int]) -> int:
    """Side of the frequency grid: the endless field must not wrap within reach of the patches."""
    return max(256, 1 << (4 * max(grid) - 1).bit_length())


def _amplitude(spectrum: Spectrum, height: int, width: int) -> Array:
    frequency = frequency_plane(height, width)
    amplitude = spectrum(frequency)
    if np.shape(amplitude) != frequency.shape or not np.all(np.isfinite(amplitude)):
        raise ValueError(
            f"the spectrum {spectrum} must give one finite amplitude per frequency, got shape "
            f"{np.shape(amplitude)} for frequencies of shape {frequency.shape}"
        )
    if not np.any(np.abs(amplitude.ravel()[1:]) > 1e-12):
        raise ValueError(
            f"the spectrum {spectrum} is zero at all frequencies of a {height}x{width} grid: "
            "every patch would get the same value"
        )
    return amplitude


def separable_factors(
    spectrum: Spectrum, grid: tuple[int, int], boundary: Boundary = "plane"
) -> tuple[Array, Array]:
    """Matrices (terms, H, M) and (terms, W, N) with field = sum_k A_k X B_k^T, X white (M, N)."""
    size = grid if boundary == "torus" else (_plane_side(grid),) * 2
    amplitude = np.abs(_amplitude(spectrum, *size))
    kernel = np.fft.fftshift(np.fft.ifft2(amplitude / np.sqrt(np.mean(amplitude**2))).real)
    centre = (size[0] // 2, size[1] // 2)
    if boundary == "plane":
        reach = _reach(kernel, centre)
        kernel = kernel[
            centre[0] - reach : centre[0] + reach + 1, centre[1] - reach : centre[1] + reach + 1
        ]
    u, s, vt = np.linalg.svd(kernel)
    terms = int(np.sum(s > s[0] * np.sqrt(_KERNEL_TAIL)))
    columns, rows = u[:, :terms].T * np.sqrt(s[:terms, None]), vt[:terms] * np.sqrt(s[:terms, None])
    if boundary == "torus":
        return _circulant(columns, centre[0]), _circulant(rows, centre[1])
    return _banded(columns, grid[0]), _banded(rows, grid[1])


def _reach(kernel: Array, centre: tuple[int, int]) -> int:
    """Smallest half-width of a square that holds all but a negligible share of the energy."""
    rows, columns = np.indices(kernel.shape)
    distance = np.maximum(np.abs(rows - centre[0]), np.abs(columns - centre[1]))
    energy = np.bincount(distance.ravel(), weights=kernel.ravel() ** 2)
    outside = 1 - np.cumsum(energy) / energy.sum()
    return min(int(np.argmax(outside < _KERNEL_TAIL)), min(centre) - 1)


def _banded(taps: Array, length: int) -> Array:
    """(terms, length, length + taps - 1): row i reads the noise from i on."""
    terms, width = taps.shape
    matrix = np.zeros((terms, length, length + width - 1))
    for i in range(length):
        matrix[:, i, i : i + width] = taps
    return matrix


def _circulant(taps: Array, centre: int) -> Array:
    """(terms, n, n): row i reads taps[j - i + centre], wrapped."""
    n = taps.shape[1]
    i = np.arange(n)
    return taps[:, (i[None] - i[:, None] + centre) % n]
