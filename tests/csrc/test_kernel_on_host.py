"""csrc/hough_so3.cuh run as C++ against the NumPy twin, through the launch code that runs on a GPU.

tests/csrc/host_driver.cpp stands in for the CUDA driver: it receives the very calls that
`nvrtc.Kernels` makes, checks them as the driver would, and runs the kernel text on the host with
fibers as threads, real barriers and a shuffled order of execution.
"""

import ctypes
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from visionlab.rotation import native, nvrtc
from visionlab.rotation.lines import Grid, lines_from_plane
from visionlab.rotation.voting import vote


class LastLaunch(ctypes.Structure):
    """``Launch`` of host_driver.cpp."""

    _fields_ = (
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint),
        ("shared_bytes", ctypes.c_uint),
        ("stream", ctypes.c_void_p),
    )


SMALL_DEVICE = 48 * 1024  # bytes of shared memory per block
LARGE_DEVICE = 227 * 1024


def run_kernel(driver, lines, weights=None, *, bins, shared_limit=LARGE_DEVICE, seed=0):
    """(B, 2) int64 cell and votes, through `Kernels` on the emulated driver."""
    driver.host_set_seed(seed)
    driver.host_set_shared_limit(nvrtc.DEFAULT_SHARED_BYTES)
    kernels = nvrtc.Kernels(b"", device_index=0, shared_limit=shared_limit, driver=driver)
    frames, count = lines.shape[:2]
    result = np.zeros((frames, 2), np.int64)
    kernels.vote(
        lines.ctypes.data,
        None if weights is None else weights.ctypes.data,
        result.ctypes.data,
        frames=frames,
        lines_per_frame=count,
        bins=bins,
        stream=1234,
    )
    return result


def oracle(lines, weights=None, *, bins):
    counts = None if weights is None else weights.astype(np.uint32)
    winner = vote(lines, counts, bins=bins, backend="numpy")
    return np.stack([winner.cell, winner.votes], -1)


def random_lines(seed, *, frames, count, bins, missing=0.1):
    """Lines through the box in all directions, on exact borders of cells, outside, and NaN."""
    rng = np.random.default_rng(seed)
    lines = rng.uniform(-0.5 * bins, 1.5 * bins, (frames, count, 4))
    lines[..., 1::2] = rng.uniform(-1.5, 1.5, (frames, count, 2))
    on_border = rng.random((frames, count)) < 0.3
    lines[on_border] = np.round(lines[on_border] * 4) / 4
    lines[rng.random((frames, count)) < missing] = np.nan
    return lines


def flow_lines(seed, *, frames, count, grid, geometry):
    """Lines of a rotating camera with noise and outliers: votes pile up in one cell."""
    rng = np.random.default_rng(seed)
    plane0 = rng.uniform(-0.58, 0.58, (frames, count, 2))
    a, b, c = rng.uniform(-0.03, 0.03, (3, frames, 1))
    x, y = plane0[..., 0], plane0[..., 1]
    motion = np.stack(
        [a * x * y - b * (1 + x * x) + c * y, a * (1 + y * y) - b * x * y - c * x], -1
    )
    motion += rng.normal(0, 7e-4, motion.shape)
    motion[:, ::3] += rng.normal(0, 0.01, motion[:, ::3].shape)
    return lines_from_plane(plane0, plane0 + motion, grid=grid, geometry=geometry)


def lines_that_contraction_moves(bins):
    """Frames of two lines that meet one slab later where x0 + dx k is rounded only once."""
    frames = []
    for slope in np.random.default_rng(3).uniform(0.5, 1.0, 200):
        for k in range(2, bins - 1):
            start = 1.0 - slope * k
            once = float(Fraction(start) + Fraction(slope) * k)
            if once < 1.0 <= start + slope * k:
                frames.append([[start, slope, 0.5, 0.0], [1.5, 0.0, 0.5, 0.0]])
    assert frames
    return np.array(frames[:20])


@pytest.mark.parametrize("geometry", ["exact", "linear"])
def test_equals_the_oracle_on_the_papers_grid(host_driver, geometry):
    grid = Grid(1e-3, 141)
    lines = flow_lines(1, frames=2, count=576, grid=grid, geometry=geometry)
    result = run_kernel(host_driver, lines, bins=grid.bins)
    np.testing.assert_array_equal(result, oracle(lines, bins=grid.bins))
    assert (result[:, 1] > 50).all()  # a real peak, not a handful of chance meetings


@pytest.mark.parametrize("bins", [1, 2, 7, 20])
@pytest.mark.parametrize("count", [1, 31, 300])
def test_equals_the_oracle_on_lines_everywhere(host_driver, bins, count):
    lines = random_lines(bins * 1000 + count, frames=4, count=count, bins=bins)
    np.testing.assert_array_equal(
        run_kernel(host_driver, lines, bins=bins), oracle(lines, bins=bins)
    )


def test_weighted_votes(host_driver):
    bins = 11
    lines = random_lines(5, frames=6, count=200, bins=bins)
    weights = np.random.default_rng(6).integers(0, 256, lines.shape[:2]).astype(np.int32)
    weights[0] = 0  # a fully masked frame
    weights[1, ::2] = 2_000_000  # sums far beyond 16 bits
    result = run_kernel(host_driver, lines, weights, bins=bins)
    np.testing.assert_array_equal(result, oracle(lines, weights, bins=bins))
    assert result[0].tolist() == [-1, 0]
    negative = np.where(weights == 0, -7, weights).astype(np.int32)
    np.testing.assert_array_equal(run_kernel(host_driver, lines, negative, bins=bins), result)


def test_sums_up_to_32_bits_are_exact(host_driver):
    lines = np.zeros((1, 3, 4))
    weights = np.full((1, 3), 2**30, np.int32)
    assert run_kernel(host_driver, lines, weights, bins=3).tolist() == [[0, 3 * 2**30]]


def test_tiles_of_a_small_device_change_nothing(host_driver):
    grid = Grid(1e-3, 141)
    lines = flow_lines(2, frames=1, count=300, grid=grid, geometry="exact")
    whole = run_kernel(host_driver, lines, bins=grid.bins)
    tiled = run_kernel(host_driver, lines, bins=grid.bins, shared_limit=SMALL_DEVICE)
    launch = nvrtc.plan_launch(300, grid.bins, SMALL_DEVICE)
    assert launch.tiles == 2
    np.testing.assert_array_equal(tiled, whole)


@pytest.mark.parametrize("shared_limit", [16 + 4 * 13, 16 + 4 * 13 * 5, 16 + 4 * 13 * 12])
def test_tiles_that_do_not_divide_the_axis(host_driver, shared_limit):
    lines = random_lines(8, frames=3, count=150, bins=13)
    result = run_kernel(host_driver, lines, bins=13, shared_limit=shared_limit)
    np.testing.assert_array_equal(result, oracle(lines, bins=13))


def test_ties_go_to_the_lowest_cell_in_any_order_of_execution(host_driver):
    bins = 9
    # one vote in each of many cells of every slab: the winner is decided by the tie rule alone
    lines = random_lines(9, frames=2, count=64, bins=bins, missing=0)
    expected = oracle(lines, bins=bins)
    for seed in range(8):
        result = run_kernel(host_driver, lines, bins=bins, seed=seed)
        np.testing.assert_array_equal(result, expected)


def test_products_and_sums_round_separately(host_driver):
    lines = lines_that_contraction_moves(9)
    np.testing.assert_array_equal(run_kernel(host_driver, lines, bins=9), oracle(lines, bins=9))


def test_large_cell_numbers(host_driver):
    bins = nvrtc.MAX_BINS  # the last cell is number 1625^3 - 1, just under 2^32
    assert bins**3 < 2**32 <= (bins + 1) ** 3
    last = float(bins) - 0.5
    lines = np.array([[[last, 0.0, last, 0.0], [last, 0.0, last, 1e-9]]])
    result = np.zeros((1, 2), np.int64)
    plan = nvrtc.plan_launch(2, bins, LARGE_DEVICE)
    job = nvrtc.VoteJob(lines.ctypes.data, None, result.ctypes.data, 1, 2, bins, plan.rows)
    # one slab is enough work for the host
    host_driver.host_run_slab(ctypes.byref(job), bins - 1, plan.tiles, plan.shared_bytes)
    assert result.tolist() == [[bins**3 - 1, 2]]


def test_more_frames_than_a_grid_has_rows(host_driver, monkeypatch):
    monkeypatch.setattr(nvrtc, "MAX_GRID_Y", 3)  # 65,535 on a GPU
    lines = random_lines(11, frames=8, count=40, bins=5)
    result = run_kernel(host_driver, lines, bins=5)
    np.testing.assert_array_equal(result, oracle(lines, bins=5))


def test_empty_batches(host_driver):
    assert run_kernel(host_driver, np.zeros((0, 5, 4)), bins=3).shape == (0, 2)
    assert run_kernel(host_driver, np.zeros((2, 0, 4)), bins=3).tolist() == [[-1, 0]] * 2


def test_both_plans_agree(host_driver):
    plan = (ctypes.c_int * 4)()
    for limit in (SMALL_DEVICE, 99 * 1024, 163 * 1024, LARGE_DEVICE):
        for bins in (1, 2, 37, 109, 110, 141, 241, 281, 701, nvrtc.MAX_BINS):
            for count in (1, 576, 2048, 2049, 129_600):
                host_driver.host_plan(count, bins, limit, plan)
                twin = nvrtc.plan_launch(count, bins, limit)
                assert list(plan) == [twin.threads, twin.rows, twin.tiles, twin.shared_bytes]
                assert twin.shared_bytes <= limit
                assert twin.rows * twin.tiles >= bins > twin.rows * (twin.tiles - 1)


def test_jobs_have_the_layout_of_the_structs(host_driver):
    assert host_driver.host_vote_job_bytes() == ctypes.sizeof(nvrtc.VoteJob)
    assert host_driver.host_refine_job_bytes() == ctypes.sizeof(nvrtc.RefineJob)
    assert host_driver.host_refine_shared_bytes() == nvrtc.REFINE_SHARED_BYTES


def test_the_op_hands_tensors_and_the_current_stream_to_the_kernel(host_driver, monkeypatch):
    host_driver.host_set_shared_limit(nvrtc.DEFAULT_SHARED_BYTES)
    kernels = nvrtc.Kernels(b"", device_index=0, shared_limit=LARGE_DEVICE, driver=host_driver)
    stream = SimpleNamespace(cuda_stream=0xABCDEF012345)
    monkeypatch.setattr(native, "_compiled_kernels", lambda device_index: kernels)
    monkeypatch.setattr("torch.cuda.device", lambda device: nullcontext())
    monkeypatch.setattr("torch.cuda.current_stream", lambda: stream)
    lines = random_lines(12, frames=3, count=50, bins=7)
    weights = np.random.default_rng(2).integers(0, 9, lines.shape[:2]).astype(np.int32)
    result = native.vote_nvrtc(torch.from_numpy(lines), torch.from_numpy(weights), 7)
    np.testing.assert_array_equal(result, oracle(lines, weights, bins=7))
    launch = ctypes.cast(host_driver.host_last_launch(), ctypes.POINTER(LastLaunch)).contents
    assert launch.stream == stream.cuda_stream


def test_any_thread_can_vote(host_driver):
    host_driver.host_set_shared_limit(nvrtc.DEFAULT_SHARED_BYTES)
    kernels = nvrtc.Kernels(b"", device_index=1, shared_limit=LARGE_DEVICE, driver=host_driver)
    lines, result = random_lines(13, frames=2, count=40, bins=5), np.zeros((2, 2), np.int64)

    def work():  # a thread that never used CUDA has no context
        before = host_driver.host_current_device()
        arrays = (lines.ctypes.data, None, result.ctypes.data)
        kernels.vote(*arrays, frames=2, lines_per_frame=40, bins=5, stream=0)
        return before, host_driver.host_current_device()

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(work).result() == (-1, 1)
    np.testing.assert_array_equal(result, oracle(lines, bins=5))


def test_driver_errors_are_named(host_driver):
    lines = np.zeros((1, 4, 4))
    host_driver.host_set_shared_limit(nvrtc.DEFAULT_SHARED_BYTES)
    kernels = nvrtc.Kernels(b"", device_index=0, shared_limit=LARGE_DEVICE, driver=host_driver)
    kernels._allowed_bytes = LARGE_DEVICE  # as if the limit had been raised already
    with pytest.raises(nvrtc.CudaError, match=r"could not launch a kernel: invalid argument"):
        kernels.vote(lines.ctypes.data, None, 0, frames=1, lines_per_frame=4, bins=141, stream=0)
    with pytest.raises(nvrtc.CudaError, match=r"find the device: invalid device ordinal"):
        nvrtc.Kernels(b"", device_index=7, shared_limit=LARGE_DEVICE, driver=host_driver)
    with pytest.raises(nvrtc.CudaError, match=r"find the kernel nothing: named symbol not found"):
        kernels._function(ctypes.c_void_p(), "nothing")


MUTANTS = {
    "barrier after clearing": ("*block_best = 0ull;\n  __syncthreads();", "*block_best = 0ull;\n"),
    "barrier before the block's maximum": (
        "atomicMax(block_best, best);\n  __syncthreads();",
        "atomicMax(block_best, best);\n",
    ),
    "tie rule": ("0xFFFFFFFFu - cell", "cell"),
    "weights": ("(unsigned)weight) + weight", "1u) + 1"),
    "last warp step": (
        "offset > 0; offset /= 2)\n    best",
        "offset > 1; offset /= 2)\n    best",
    ),
    "border": ("position < bins)", "position <= bins)"),
    "contraction": (
        "__dadd_rn(start, __dmul_rn(slope, k))",
        "__builtin_fma(slope, k, start)",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_each_mutant_of_the_kernel_is_caught(name, build_driver):
    before, after = MUTANTS[name]
    text = native.kernel_text()
    assert text.count(before) == 1
    driver = build_driver(text.replace(before, after))
    bins = 9
    lines = random_lines(21, frames=6, count=300, bins=bins)
    weights = np.random.default_rng(1).integers(0, 5, lines.shape[:2]).astype(np.int32)
    if name == "contraction":
        lines, weights = lines_that_contraction_moves(bins), None
    expected = oracle(lines, weights, bins=bins)
    try:
        results = [run_kernel(driver, lines, weights, bins=bins, seed=s) for s in range(3)]
    except nvrtc.CudaError:
        return  # a write outside shared memory: caught by the canary
    assert any((result != expected).any() for result in results)
