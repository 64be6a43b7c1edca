"""Each correspondence of rays leaves a line of rotations that explain it.

A static ray p of frame i is seen as q in frame i+1 under the camera rotation R with ``R q = p``.

- ``exact``: those rotations form a straight line in Gibbs coordinates ``g = tan(angle/2) * axis``
  for every angle below 180 degrees, ``g(s) = (q x p)/(1 + p.q) + s (p + q)``. Votes are cast in
  ``G = 2 g``, which equals the rotation vector up to angle^3/12.
- ``linear``: the paper's first-order rule (arXiv 2309.08588; Longuet-Higgins and Prazdny 1980),
  kept for parity. Its answer is biased by .06 degree at 4 degrees of motion and 1 degree at 15.

Both are written with z as the major axis: ``(Gx, Gy) = P + D Gz``. Rays more than 75 degrees off
the optical axis take no part (`MAX_SLOPE`), since such a line skips most cells of a z-major sweep.
"""

from math import pi, tan
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Geometry = Literal["exact", "linear"]

MAX_SLOPE = tan(75 * pi / 180)


class Grid(NamedTuple):
    """Cubic box of rotation space: ``bins`` (odd) cells of ``bin_size`` per axis around zero."""

    bin_size: float
    bins: int

    @property
    def half(self) -> int:
        """Bins on either side of the central one."""
        return (self.bins - 1) // 2

    @classmethod
    def for_range(cls, bin_size: float, max_angle: float, geometry: Geometry = "exact") -> "Grid":
        """The grid that reaches rotations of ``max_angle`` rad about each axis."""
        reach = 2 * tan(max_angle / 2) if geometry == "exact" else max_angle
        return cls(bin_size, 2 * round(reach / bin_size) + 1)

    @classmethod
    def with_bins(cls, bins: int, max_angle: float, geometry: Geometry = "exact") -> "Grid":
        """The grid of a given number of cells that reaches ``max_angle`` rad."""
        reach = 2 * tan(max_angle / 2) if geometry == "exact" else max_angle
        return cls(2 * reach / (bins - 1), bins)

    def centre(self, cell: int | NDArray[np.int64]) -> Array:
        """Grid coordinates (..., 3) of the centres of flat cells ``(ix bins + iy) bins + iz``."""
        flat = np.asarray(cell, np.int64)
        index = np.stack(
            [flat // self.bins**2, flat // self.bins % self.bins, flat % self.bins], -1
        )
        return np.asarray((index - self.half) * self.bin_size, np.float64)

    def rotvec(self, cell: int | NDArray[np.int64], geometry: Geometry = "exact") -> Array:
        """Rotation vectors (..., 3) in rad at the centres of flat cells."""
        centre = self.centre(cell)
        return rotvec_from_gibbs(centre) if geometry == "exact" else centre


def rotvec_from_gibbs(gibbs: ArrayLike) -> Array:
    """Rotation vectors (..., 3) in rad of grid coordinates ``G = 2 tan(angle/2) * axis``."""
    g = np.asarray(gibbs, np.float64)
    norm = np.linalg.norm(g, axis=-1, keepdims=True)
    safe = np.where(norm > 0, norm, 1.0)
    return g * np.where(norm > 0, 2 * np.arctan(safe / 2) / safe, 1.0)


def lines_from_plane(
    plane0: ArrayLike, plane1: ArrayLike, *, grid: Grid, geometry: Geometry = "exact"
) -> Array:
    """Voting lines of correspondences on the plane z = 1 (normalised, undistorted).

    Every backend computes them with these operations in this order and without contraction
    (a * b + c rounds twice), so that lines, hence votes, agree bit for bit.

    Args:
        plane0: (..., N, 2) coordinates (x, y) in frame i.
        plane1: (..., N, 2) coordinates in frame i+1.

    Returns:
        (..., N, 4) float64 columns ``x0, dx, y0, dy`` in index units: the sample of slab k has the
        indices ``floor(x0 + dx k)``, ``floor(y0 + dy k)``, k. Correspondences that cannot vote
        (NaN, or a ray beyond 75 degrees) are NaN lines, which never hit a cell.
    """
    x, y = np.moveaxis(np.asarray(plane0, np.float64), -1, 0)
    u, v = np.moveaxis(np.asarray(plane1, np.float64), -1, 0)
    with np.errstate(all="ignore"):
        if geometry == "exact":
            n0, n1 = np.sqrt((x * x + y * y) + 1.0), np.sqrt((u * u + v * v) + 1.0)
            depth = n0 + n1
            dx, dy = (n1 * x + n0 * u) / depth, (n1 * y + n0 * v) / depth
            scale = 2.0 / (n0 * n1 + ((x * u + y * v) + 1.0))
            gx, gy, gz = (v - y) * scale, (x - u) * scale, (u * y - v * x) * scale
            px, py = gx - dx * gz, gy - dy * gz
        else:
            du, dv = u - x, v - y
            square = (x * x + y * y) + 1.0
            px = ((dv - (du * x) * y) + (dv * x) * x) / square
            py = -((du + (du * y) * y) - (dv * x) * y) / square
            dx, dy = x, y
        half = float(grid.half)
        x0 = (px / grid.bin_size - dx * half) + (half + 0.5)
        y0 = (py / grid.bin_size - dy * half) + (half + 0.5)
        out = np.stack([x0, dx, y0, dy], -1)
        usable = np.isfinite(out).all(-1) & (dx * dx + dy * dy <= MAX_SLOPE * MAX_SLOPE)
    out[~usable] = np.nan
    return out
