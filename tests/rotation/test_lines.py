import numpy as np
import pytest

from visionlab.rotation import so3
from visionlab.rotation.lines import Grid, lines_from_plane, rotvec_from_gibbs
from visionlab.rotation.lines_numba import lines_from_rows

RNG = np.random.default_rng(1)


def gibbs_from_rotvec(rotvec):
    """Grid coordinates ``G = 2 tan(angle/2) * axis`` (..., 3) of rotation vectors below pi."""
    w = np.asarray(rotvec, np.float64)
    norm = np.linalg.norm(w, axis=-1, keepdims=True)
    safe = np.where(norm > 0, norm, 1.0)
    return w * np.where(norm > 0, 2 * np.tan(safe / 2) / safe, 1.0)


def plane_pair(rotvec, count=200, reach=0.8):
    """Normalised coordinates of static points before and after a camera rotation."""
    plane0 = RNG.uniform(-reach, reach, (count, 2))
    rays = np.concatenate([plane0, np.ones((count, 1))], 1) @ so3.exp(rotvec)  # rows: R^T p
    return plane0, rays[:, :2] / rays[:, 2:]


@pytest.mark.parametrize("angle", [1e-9, 0.01, 0.1, 0.5, 1.0])
def test_exact_lines_pass_through_the_rotation(angle):
    rotvec = angle * np.array([0.5, 0.8, 0.33]) / np.linalg.norm([0.5, 0.8, 0.33])
    grid = Grid.for_range(angle / 50 + 1e-6, max(2 * angle, 1e-4))
    x0, dx, y0, dy = lines_from_plane(*plane_pair(rotvec, reach=0.2), grid=grid).T
    g = gibbs_from_rotvec(rotvec) / grid.bin_size + grid.half + 0.5  # in index units
    np.testing.assert_allclose(x0 + dx * (g[2] - 0.5), g[0], atol=1e-9)
    np.testing.assert_allclose(y0 + dy * (g[2] - 0.5), g[1], atol=1e-9)


def test_linear_lines_meet_exact_ones_for_small_motion():
    grid = Grid.for_range(1e-6, 1e-4)
    pair = plane_pair([2e-6, -3e-6, 1e-6])
    exact, linear = (lines_from_plane(*pair, grid=grid, geometry=g) for g in ("exact", "linear"))
    np.testing.assert_allclose(exact, linear, atol=1e-3)


def test_every_rotation_on_an_exact_line_explains_the_ray():
    plane0, plane1 = plane_pair([0.2, -0.1, 0.3], 5)
    grid = Grid(0.01, 141)
    x0, dx, y0, dy = lines_from_plane(plane0, plane1, grid=grid)[0]
    p, q = np.append(plane0[0], 1), np.append(plane1[0], 1)
    for k in (0, 50, 140):
        index = np.array([x0 + dx * k - 0.5, y0 + dy * k - 0.5, k])
        turned = so3.exp(rotvec_from_gibbs((index - grid.half) * grid.bin_size)) @ q
        np.testing.assert_allclose(turned / turned[2], p, atol=1e-12)


def test_gibbs_round_trip_and_zero():
    w = RNG.uniform(-1.5, 1.5, (50, 3))
    np.testing.assert_allclose(rotvec_from_gibbs(gibbs_from_rotvec(w)), w, atol=1e-12)
    assert rotvec_from_gibbs(np.zeros(3)).tolist() == [0, 0, 0]
    assert gibbs_from_rotvec(np.zeros(3)).tolist() == [0, 0, 0]


def test_grid_of_the_paper():
    grid = Grid.for_range(1e-3, 0.07, "linear")
    assert grid.bins == 141
    assert Grid.for_range(1e-3, 0.07, "exact").bins == 141
    np.testing.assert_allclose(grid.centre(0), [-0.07] * 3)
    np.testing.assert_allclose(grid.centre((3 * 141 + 4) * 141 + 5), [-0.067, -0.066, -0.065])


def test_unusable_rays_are_nan_lines():
    plane0 = np.array([[np.nan, 0.0], [5.0, 0.0], [0.1, 0.2]])
    out = lines_from_plane(plane0, plane0, grid=Grid(1e-3, 141))
    assert np.isnan(out).all(-1).tolist() == [True, True, False]


@pytest.mark.parametrize("geometry", ["exact", "linear"])
def test_numba_twin_is_bit_equal(geometry):
    plane0 = RNG.normal(0, 1.5, (5000, 2))
    plane1 = plane0 + RNG.normal(0, 0.05, (5000, 2))
    plane0[::50], plane1[7::50] = np.nan, np.inf
    for grid in (Grid(1e-3, 141), Grid(0.0123, 33)):
        slow = lines_from_plane(plane0, plane1, grid=grid, geometry=geometry)
        rows = np.ascontiguousarray(np.concatenate([plane0.T, plane1.T]))
        fast = lines_from_rows(rows, grid.bin_size, float(grid.half), geometry == "exact")
        np.testing.assert_array_equal(fast, slow)
