"""csrc/refine_so3.cuh run as C++ against the numba twin, through the launch code of a GPU."""

import re
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from visionlab.rotation import native, nvrtc, refinement, refinement_numba, so3

FOCAL = 413.75


@pytest.fixture(autouse=True)
def _whole_grids(host_driver):
    host_driver.host_set_shared_limit(nvrtc.DEFAULT_SHARED_BYTES)


def run_kernel(driver, rows, start, *, scale=None, counts=None, seed=0):
    """(B, 11), through `Kernels.refine` on the emulated driver."""
    driver.host_set_seed(seed)
    kernels = nvrtc.Kernels(b"", device_index=0, shared_limit=48 * 1024, driver=driver)
    result = np.full((len(rows), nvrtc.REFINE_FIELDS), np.nan)
    job = nvrtc.RefineJob(
        rows.ctypes.data,
        None if counts is None else counts.ctypes.data,
        start.ctypes.data,
        result.ctypes.data,
        0.9,
        scale or 0.0,
        len(rows),
        rows.shape[-1],
    )
    kernels.refine(job, stream=0)
    return result


def crowd(seed, *, frames, count, movers=0.4):
    """(rows (B, 6, N), start (B, 3), truth): rotating cameras, movers, noise of .3 px."""
    rng = np.random.default_rng(seed)
    truth = rng.uniform(-0.05, 0.05, (frames, 3))
    rows = np.ones((frames, 6, count))
    rows[:, :2] = rng.uniform(-0.58, 0.58, (frames, 2, count))
    moved = np.einsum("bji,bjn->bin", so3.exp(truth), np.insert(rows[:, :2], 2, 1.0, axis=1))
    rows[:, 2:4] = moved[:, :2] / moved[:, 2:] + rng.normal(0, 0.3 / FOCAL, (frames, 2, count))
    moving = np.nonzero(rng.random((frames, count)) < movers)
    rows[moving[0], 2, moving[1]] += rng.normal(0, 6 / FOCAL, len(moving[0]))
    rows[:, 4] = FOCAL
    return rows, truth + rng.normal(0, 5e-4, truth.shape), truth


def assert_equals_numba(result, rows, start, *, scale=None, counts=None):
    for i in range(len(rows)):
        count = rows.shape[-1] if counts is None else counts[i]
        used = np.ascontiguousarray(rows[i][:, :count])
        single = refinement.refine(used, start[i], first_scale=0.9, scale=scale)
        np.testing.assert_allclose(result[i, :3], single.rotvec, atol=1e-9)
        np.testing.assert_allclose(result[i, 3], single.sigma, rtol=1e-6)
        assert result[i, 10] == (single.covariance is not None)
        if single.covariance is not None:
            np.testing.assert_allclose(
                result[i, 4:10], single.covariance[np.triu_indices(3)], rtol=1e-5, atol=1e-16
            )


@pytest.mark.parametrize("scale", [None, 0.4])
@pytest.mark.parametrize("count", [50, 700, refinement.THIN_ABOVE + 100])
def test_equals_the_numba_twin(host_driver, scale, count):
    rows, start, truth = crowd(count, frames=3, count=count)
    result = run_kernel(host_driver, rows, start, scale=scale)
    assert_equals_numba(result, rows, start, scale=scale)
    if count > 500:
        assert np.abs(result[:, :3] - truth).max() < 1e-3


def test_weights(host_driver):
    rows, start, _ = crowd(1, frames=3, count=500)
    rows[:, 5] = np.random.default_rng(2).uniform(0, 40, (3, 500))  # any unit
    assert_equals_numba(run_kernel(host_driver, rows, start), rows, start)


def test_only_the_first_vectors_count(host_driver):
    rows, start, _ = crowd(3, frames=4, count=600)
    counts = np.array([600, 411, 90, 5], np.int32)
    rows[1, :, 411:] = np.nan  # what lies beyond is never read
    result = run_kernel(host_driver, rows, start, counts=counts)
    assert_equals_numba(result, rows, start, counts=counts)


def test_frames_that_fix_no_rotation_stay(host_driver):
    rows, start, _ = crowd(4, frames=4, count=100)
    rows[0, 5] = 0
    rows[1, :2] = rows[1, 2:4] = 0.1  # all at one point
    rows[2, 2, 5] = np.nan
    result = run_kernel(host_driver, rows, start, counts=np.array([100, 100, 100, 0], np.int32))
    np.testing.assert_array_equal(result[:, 10], 0)
    np.testing.assert_allclose(result[:, :3], start, atol=1e-12)
    np.testing.assert_array_equal(result[:, 4:10], 0)


def test_the_same_bits_in_any_order_of_execution(host_driver):
    rows, start, _ = crowd(5, frames=2, count=400)
    first = run_kernel(host_driver, rows, start)
    for seed in range(1, 6):
        np.testing.assert_array_equal(run_kernel(host_driver, rows, start, seed=seed), first)


def test_large_and_zero_rotations(host_driver):
    rows, _, _ = crowd(6, frames=2, count=300, movers=0)
    still = rows.copy()
    still[:, 2:4] = still[:, :2]
    result = run_kernel(host_driver, still, np.zeros((2, 3)))
    np.testing.assert_allclose(result[:, :3], 0, atol=1e-15)
    angle = np.array([[0.3, -0.2, 1.2], [0.0, 0.0, 2.5]])
    moved = np.einsum("bji,bjn->bin", so3.exp(angle), np.insert(rows[:, :2], 2, 1.0, axis=1))
    rows[:, 2:4] = moved[:, :2] / moved[:, 2:]
    result = run_kernel(host_driver, rows, angle + 3e-4)
    np.testing.assert_allclose(result[:, :3], angle, atol=1e-8)


def test_the_op_hands_tensors_to_the_kernel(host_driver, monkeypatch):
    kernels = nvrtc.Kernels(b"", device_index=0, shared_limit=48 * 1024, driver=host_driver)
    monkeypatch.setattr(native, "_compiled_kernels", lambda device_index: kernels)
    monkeypatch.setattr("torch.cuda.device", lambda device: nullcontext())
    monkeypatch.setattr("torch.cuda.current_stream", lambda: SimpleNamespace(cuda_stream=7))
    rows, start, _ = crowd(7, frames=2, count=100)
    counts = np.array([100, 60], np.int32)
    tensors = [torch.from_numpy(array) for array in (rows, counts, start)]
    result = native.refine_nvrtc(*tensors, 0.9, 0.0).numpy()
    assert_equals_numba(result, rows, start, counts=counts)


def test_constants_equal_the_twins():
    text = native.kernel_text()
    defined = {
        name: float(value) for name, value in re.findall(r"#define REFINE_(\w+) ([\d.]+)\b", text)
    }
    least, most = refinement.SCALE_BOUNDS
    expected = {
        "PASSES": refinement.PASSES,
        "ANNEAL": refinement.ANNEAL,
        "MODE_SCALE": refinement.MODE_SCALE,
        "LEAST_SCALE": least,
        "MOST_SCALE": most,
        "THIN_ABOVE": refinement.THIN_ABOVE,
        "MAD_BINS": refinement_numba.MAD_BINS,
        "OUT": nvrtc.REFINE_FIELDS,
    }
    assert {name: defined[name] for name in expected} == expected


MUTANTS = {
    "barrier before the sums": ("sums[j];\n  }\n  __syncthreads();", "sums[j];\n  }\n"),
    "barrier after the step": (
        "refine_step(shared, pass);\n    __syncthreads();",
        "refine_step(shared, pass);\n",
    ),
    "thinning": ("annealing ? thin : 1", "annealing ? (thin > 0) : 1"),
    "direction": (
        "product[3 * i + j] = shared->matrix[3 * i] * turn[j]",
        "product[3 * i + j] = 0.0",
    ),
    "cofactor": ("a[1] * a[2] - a[0] * a[4]", "a[0] * a[4] - a[1] * a[2]"),
    "noise": ("1.4826 * median", "1.3 * median"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_each_mutant_of_the_refinement_is_caught(name, build_driver):
    before, after = MUTANTS[name]
    text = native.kernel_text()
    assert text.count(before) == 1
    driver = build_driver(text.replace(before, after))
    rows, start, _ = crowd(9, frames=1, count=refinement.THIN_ABOVE + 50)
    caught = False
    for seed in range(3):
        result = run_kernel(driver, rows, start, seed=seed)
        try:
            assert_equals_numba(result, rows, start)
        except AssertionError:
            caught = True
    assert caught
