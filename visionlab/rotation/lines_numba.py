"""Numba twin of `lines.lines_from_plane`: the same operations in the same order, bit for bit."""
# ruff: noqa: TID253 - this module is numba; `solver` imports it on first use

from typing import Any

import numpy as np
from numba import njit

from visionlab.rotation.lines import MAX_SLOPE


@njit(cache=True, nogil=True, error_model="numpy")
def lines_from_rows(rows: Any, bin_size: float, half: float, exact: bool) -> Any:
    """Voting lines (N, 4) of rows x, y, u, v (4 or more, N); see `lines.lines_from_plane`."""
    out = np.empty((rows.shape[1], 4))
    steepest = MAX_SLOPE * MAX_SLOPE
    for i in range(rows.shape[1]):
        x, y, u, v = rows[0, i], rows[1, i], rows[2, i], rows[3, i]
        if exact:
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
        x0 = (px / bin_size - dx * half) + (half + 0.5)
        y0 = (py / bin_size - dy * half) + (half + 0.5)
        usable = np.isfinite(x0 + dx + y0 + dy) and dx * dx + dy * dy <= steepest
        out[i, 0] = x0 if usable else np.nan
        out[i, 1] = dx if usable else np.nan
        out[i, 2] = y0 if usable else np.nan
        out[i, 3] = dy if usable else np.nan
    return out
