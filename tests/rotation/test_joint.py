import numpy as np
import pytest
from scipy import stats
from scipy.integrate import quad

from visionlab.rotation import joint_numba as kernels
from visionlab.rotation import so3
from visionlab.rotation.estimator import RotationEstimator
from visionlab.rotation.inputs import PixelGrid
from visionlab.rotation.joint import fibonacci_sphere, regional_gain
from visionlab.rotation.scenes import make_scene


@pytest.mark.parametrize("al", [-1.0, -0.2, 0.0, 0.3, 2.0, 15.0])
@pytest.mark.parametrize("lam", [0.05, 0.7, 5.0, 15.0])
def test_density_is_an_exponential_with_noise(al, lam):
    s = 0.4
    expected, _ = quad(
        lambda v: lam * np.exp(-lam * v) * stats.norm.pdf(al - v, scale=s),
        max(0.0, al - 10 * s),
        max(0.0, al + 10 * s),
    )
    bell = np.exp(-al * al / (2 * s * s))
    density, hazard, z = kernels.depth_density.py_func(al, s, lam, bell)
    assert z == pytest.approx(al / s - lam * s)
    assert density == pytest.approx(expected, rel=0.03, abs=1e-12)
    assert hazard == pytest.approx(stats.norm.pdf(z) / stats.norm.cdf(z), rel=0.04, abs=1e-12)


def test_fast_exp():
    x = np.linspace(-30, 20, 301)
    values = [kernels.fast_exp.py_func(v) for v in x]
    np.testing.assert_allclose(values, np.exp(x), rtol=2e-4)


def oracle_densities(rows, matrix, t, state, s):
    """Each point's density, straight from the formulas with scipy's normal distribution."""
    p = matrix.T @ np.stack([rows[0], rows[1], np.ones(rows.shape[1])])
    p = p[:2] / p[2]
    r = rows[4] * (rows[2:4] - p)
    e = rows[4] * (p * t[2] - t[:2, None])
    size = np.sqrt((e * e).sum(0) + 1e-6 * rows[4] ** 2)
    n = e / size
    al, ac = (n * r).sum(0), n[0] * r[1] - n[1] * r[0]
    inside = (np.abs(ac) < 5 * s) & (al > -6 * s)

    def depth(rate):
        lam = np.minimum(rate / (state[kernels.RHO] * size), 6 / s)
        return lam * np.exp((lam * s) ** 2 / 2 - lam * al) * stats.norm.cdf(al / s - lam * s)

    static = state[0] * depth(1.0) + state[1] * depth(20.0)
    static = static * stats.norm.pdf(ac, scale=s) * inside
    wide = 1 / (2 * state[4] ** 2)
    return static + state[2] * wide / np.pi / (1 + (r * r).sum(0) * wide) ** 2


def joint_rows(scenario="S3", seed=5):
    scene = make_scene(scenario, 1, seed=seed)
    return scene, PixelGrid(scene.camera, 15).gather(scene.flow, None, None).rows


def test_e_step_equals_the_formulas():
    scene, rows = joint_rows()
    state = np.array([0.5, 0.3, 0.2, 0.003, 3.0])
    matrix, t = so3.exp(scene.rotvec + 2e-4), scene.heading
    sums, frame, total = np.empty(kernels.SUMS), np.empty((3, 3)), np.empty(rows.shape[1])
    kernels.across_frame(t, frame)
    np.testing.assert_allclose(frame @ frame.T, np.eye(3), atol=1e-12)
    kernels.accumulate(rows, matrix, frame, state, 0.5, sums, total)
    np.testing.assert_allclose(total, oracle_densities(rows, matrix, t, state, 0.5), rtol=0.03)
    static = np.empty(rows.shape[1])
    kernels.static_share(rows, matrix, state, total, static)
    assert sums[26] == rows.shape[1]
    assert sums[20] + sums[21] == pytest.approx(static.sum(), rel=1e-9)


def test_gradient_follows_the_likelihood():
    """Finite differences of the likelihood; the rates' own change is left out of the score."""
    scene, rows = joint_rows()
    t = scene.heading
    state = np.array([0.6, 0.4, 1e-9, 0.003, 3.0])
    near = np.hypot(*(rows[4] * (rows[2:4] - rows[:2]))) < 1e9
    flow = oracle_densities(
        rows, so3.exp(scene.rotvec), t, np.array([0.5, 0.3, 0.2, 0.003, 3.0]), 0.3
    )
    rows = np.ascontiguousarray(rows[:, near & (flow > np.quantile(flow, 0.5))])
    sums, frame, total = np.empty(kernels.SUMS), np.empty((3, 3)), np.empty(rows.shape[1])
    kernels.across_frame(t, frame)
    matrix = so3.exp(scene.rotvec + 3e-5)
    kernels.accumulate(rows, matrix, frame, state, 0.3, sums, total)
    for axis in range(3):
        d = np.zeros(3)
        d[axis] = 1e-6
        up, down = (
            np.log(oracle_densities(rows, matrix @ so3.exp(sign * d), t, state, 0.3)).sum()
            for sign in (1, -1)
        )
        scale = np.abs(sums[15:18]).max()
        assert sums[15 + axis] == pytest.approx((up - down) / 2e-6, abs=0.05 * scale)


def test_joint_beats_rotation_alone_under_parallax():
    alone, joint, headings = [], [], []
    for index in range(10):
        scene = make_scene("S4", index, seed=31)
        irls, full = (RotationEstimator(scene.camera, refine=r) for r in ("irls", "joint"))
        estimate = full(scene.flow)
        assert estimate.joint
        alone.append(so3.angle_between(irls(scene.flow).rotvec, scene.rotvec))
        joint.append(so3.angle_between(estimate.rotvec, scene.rotvec))
        headings.append(np.degrees(np.arccos(min(estimate.heading @ scene.heading, 1.0))))
        assert estimate.parallax > 1
        assert estimate.static.shape == (len(estimate.points),)
        on_static = scene.static[tuple(estimate.points.astype(int).T[::-1])]
        assert estimate.static[on_static].mean() > estimate.static[~on_static].mean() + 0.3
    assert np.degrees(np.median(joint)) < 0.02 < np.degrees(np.median(alone)) * 1.2
    assert np.median(headings) < 3


def test_gate_refuses_without_parallax():
    for index in range(6):
        scene = make_scene("S0", index, seed=31)
        irls, full = (
            RotationEstimator(scene.camera, refine=r)(scene.flow) for r in ("irls", "joint")
        )
        assert not full.joint
        assert full.heading is None
        assert full.gate[0] < 0.02
        np.testing.assert_array_equal(irls.rotvec, full.rotvec)


def test_headings_cover_the_sphere():
    points = fibonacci_sphere(16)
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 1)
    directions = np.random.default_rng(0).normal(size=(500, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    assert (directions @ points.T).max(1).min() > np.cos(np.radians(40))


def test_a_prior_heading_is_one_more_start():
    scene = make_scene("S3", 2, seed=31)
    estimator = RotationEstimator(scene.camera, refine="joint")
    first = estimator(scene.flow)
    again = estimator(scene.flow, prior=first)
    assert so3.angle_between(first.rotvec, again.rotvec) < 1e-3


def test_one_mover_does_not_carry_the_gate():
    plane = np.random.default_rng(0).uniform(-1, 1, (2, 4000))
    everywhere = np.full(4000, 0.05)
    assert regional_gain(plane, everywhere) == pytest.approx(0.05)
    mover = np.where(
        (np.abs(plane) < 0.2).all(0), 5.0, -0.001
    )  # large gain in four of forty regions
    assert mover.mean() > 0.1
    assert regional_gain(plane, mover) < 0
