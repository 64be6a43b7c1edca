"""What only a GPU can show; on the CPU tests/csrc, test_op and test_device hold the same claims."""

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from visionlab.rotation import batched, device, native, op, so3
from visionlab.rotation.estimator import RotationEstimator
from visionlab.rotation.lines import Grid
from visionlab.rotation.lines import lines_from_plane as lines_numpy
from visionlab.rotation.scenes import make_scene
from visionlab.rotation.voting import vote

pytestmark = pytest.mark.gpu

ROOT = Path(__file__).parents[2]
SCENARIOS = ("S0", "S1", "S2", "S3", "S4", "S5")


def scenes(count, *, first=0):
    return [
        make_scene(SCENARIOS[i % len(SCENARIOS)], index=i, seed=5)
        for i in range(first, first + count)
    ]


def planes(scene, step=15):
    """(2, N, 2): correspondences of a scene's voting grid on the plane z = 1."""
    grid = RotationEstimator(scene.camera, grid_step=step).voting_grid
    moved = grid.points + scene.flow[grid.window].reshape(-1, 2)
    return np.stack([scene.camera.normalise(p) for p in (grid.points, moved)])


def lines_everywhere(seed, *, frames, count, bins):
    rng = np.random.default_rng(seed)
    lines = rng.uniform(-0.5 * bins, 1.5 * bins, (frames, count, 4))
    lines[..., 1::2] = rng.uniform(-1.5, 1.5, (frames, count, 2))
    lines[rng.random((frames, count)) < 0.1] = np.nan
    return lines


@pytest.mark.slow
def test_1000_flows_have_bit_equal_votes():
    grid = Grid(1e-3, 141)
    for first in range(0, 1000, 100):
        pairs = np.stack([planes(scene) for scene in scenes(100, first=first)])
        on_gpu = torch.from_numpy(pairs).cuda()
        for geometry in ("exact", "linear"):
            lines = lines_numpy(pairs[:, 0], pairs[:, 1], grid=grid, geometry=geometry)
            expected = vote(lines, bins=grid.bins, search="full", backend="numba")
            if first == 0:
                oracle = vote(lines[:20], bins=grid.bins, backend="numpy")
                np.testing.assert_array_equal(expected.cell[:20], oracle.cell)
            winners = [
                op.hough_vote(torch.from_numpy(lines).cuda(), bins=grid.bins),
                batched.vote(on_gpu[:, 0], on_gpu[:, 1], grid=grid, geometry=geometry)[1],
            ]
            for winner in winners:
                np.testing.assert_array_equal(winner.cell.cpu(), expected.cell)
                np.testing.assert_array_equal(winner.votes.cpu(), expected.votes)


@pytest.mark.slow
def test_1000_flows_are_refined_within_a_hundred_thousandth():
    by_camera = {}
    for scene in scenes(1000):
        by_camera.setdefault(scene.camera, []).append(scene.flow)
    assert len(by_camera) == 2  # S5 is wide
    for camera, flows in by_camera.items():
        estimator = RotationEstimator(camera, max_angle=0.12)
        for first in range(0, len(flows), 100):
            part = np.stack(flows[first : first + 100])
            estimates = device.estimate_batch(estimator, torch.from_numpy(part).cuda())
            for flow, estimate in zip(part, estimates):
                expected = estimator(flow)
                assert so3.angle_between(estimate.rotvec, expected.rotvec) < 1e-5
                assert estimate.status == expected.status
                assert estimate.votes == expected.votes


def test_estimator_batches_run_on_the_gpu():
    chosen = [make_scene("S1", index=i, seed=5) for i in range(4)]
    flows = np.stack([scene.flow for scene in chosen])
    expected = RotationEstimator(chosen[0].camera).batch(flows)
    for backend, given in (("auto", torch.from_numpy(flows).cuda()), ("cuda", flows)):
        estimator = RotationEstimator(chosen[0].camera, backend=backend)
        for one, other in zip(estimator.batch(given), expected):
            assert so3.angle_between(one.rotvec, other.rotvec) < 1e-5
            assert (one.votes, one.status) == (other.votes, other.status)
        single = estimator(given[0])
        assert (single.votes, single.status) == (expected[0].votes, expected[0].status)


@pytest.mark.parametrize(("bins", "count"), [(1, 5), (37, 576), (141, 129_600), (321, 3000)])
def test_grids_of_all_sizes(bins, count):
    frames = 2 if count > 10_000 else 5
    lines = lines_everywhere(bins, frames=frames, count=count, bins=bins)
    weights = np.random.default_rng(1).integers(0, 256, lines.shape[:2]).astype(np.int32)
    expected = vote(lines, weights.astype(np.uint32), bins=bins, search="full")
    winner = op.hough_vote(
        torch.from_numpy(lines).cuda(), torch.from_numpy(weights).cuda(), bins=bins
    )
    np.testing.assert_array_equal(winner.cell.cpu(), expected.cell)
    np.testing.assert_array_equal(winner.votes.cpu(), expected.votes)


def test_more_frames_than_a_grid_has_rows():
    lines = lines_everywhere(3, frames=70_000, count=8, bins=5)
    expected = vote(lines, bins=5, search="full")
    winner = op.hough_vote(torch.from_numpy(lines).cuda(), bins=5)
    np.testing.assert_array_equal(winner.cell.cpu(), expected.cell)
    np.testing.assert_array_equal(winner.votes.cpu(), expected.votes)


def test_the_vote_runs_on_the_current_stream():
    lines = torch.from_numpy(lines_everywhere(4, frames=4, count=576, bins=141)).cuda()
    expected = op.hough_vote(lines, bins=141)
    late = torch.full_like(lines, torch.nan)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)  # the vote must wait for the copy behind this
        late.copy_(lines)
        winner = op.hough_vote(late, bins=141)
    stream.synchronize()
    assert torch.equal(winner.cell, expected.cell)
    assert torch.equal(winner.votes, expected.votes)


def test_the_vote_can_be_captured_in_a_graph():
    lines = torch.from_numpy(lines_everywhere(5, frames=3, count=576, bins=141)).cuda()
    expected = op.hough_vote(lines, bins=141)
    static = torch.full_like(lines, torch.nan)
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        op.hough_vote(static, bins=141)
    side.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        winner = op.hough_vote(static, bins=141)
    static.copy_(lines)
    graph.replay()
    assert torch.equal(winner.cell, expected.cell)


def test_any_thread_can_vote_and_refine():
    lines = torch.from_numpy(lines_everywhere(7, frames=2, count=576, bins=141)).cuda()
    expected = op.hough_vote(lines, bins=141)
    rows = torch.rand(2, 6, 500, dtype=torch.float64, device="cuda")
    start = torch.zeros(2, 3, dtype=torch.float64, device="cuda")
    torch.cuda.synchronize()
    with ThreadPoolExecutor(1) as pool:  # its thread has no CUDA context yet
        refined = pool.submit(op.so3_refine, rows, start, first_scale=1.0).result()
    with ThreadPoolExecutor(1) as pool:
        winner = pool.submit(op.hough_vote, lines, bins=141).result()
    assert torch.equal(winner.cell, expected.cell)
    assert torch.equal(refined.rotvec, op.so3_refine(rows, start, first_scale=1.0).rotvec)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_each_device_votes_on_its_own_tensors():
    lines = torch.from_numpy(lines_everywhere(6, frames=3, count=576, bins=141))
    expected = op.hough_vote(lines, bins=141)
    for index in reversed(range(torch.cuda.device_count())):
        winner = op.hough_vote(lines.to(f"cuda:{index}"), bins=141)  # current device stays cuda:0
        assert winner.cell.device.index == index
        assert torch.equal(winner.cell.cpu(), expected.cell)
    assert torch.cuda.current_device() == 0


def test_the_refinement_gives_the_same_bits_every_time():
    scene = make_scene("S1", seed=5)
    estimator = RotationEstimator(scene.camera)
    flows = torch.from_numpy(scene.flow).cuda()[None].expand(64, -1, -1, -1)
    dense = device.gather(estimator.dense_grid, flows)
    start = torch.from_numpy(scene.rotvec).cuda().expand(64, -1)
    first = op.so3_refine(dense.rows, start, first_scale=0.9)
    for _ in range(5):
        again = op.so3_refine(dense.rows, start, first_scale=0.9)
        assert torch.equal(again.rotvec, first.rotvec)
    assert torch.equal(first.rotvec, first.rotvec[:1].expand(64, -1))


def test_weights_must_lie_beside_the_lines():
    lines = torch.zeros(1, 4, 4, dtype=torch.float64, device="cuda")
    with pytest.raises(ValueError, match=r"weights of shape \(1, 4\) on cpu do not fit lines"):
        op.hough_vote(lines, torch.ones(1, 4, dtype=torch.int32), bins=3)


def test_first_use_takes_less_than_half_a_second():
    code = """
import json, time, torch
from visionlab.rotation import native, op
lines = torch.zeros(1, 576, 4, dtype=torch.float64, device="cuda")
torch.cuda.synchronize()
start = time.perf_counter()
native.vote_nvrtc(lines, None, 141).tolist()
print(json.dumps(time.perf_counter() - start))
"""
    assert run_python(code, VISIONLAB_NATIVE="nvrtc") < 0.5


WORK = """
import json, sys
import numpy as np, torch
from visionlab.rotation import native, op
from visionlab.rotation.voting import vote
rng = np.random.default_rng(0)
for frames, count, bins in ((1, 576, 141), (7, 300, 20), (2, 5000, 321), (3, 0, 5), (4, 9, 1)):
    lines = rng.uniform(-0.5 * bins, 1.5 * bins, (frames, count, 4))
    lines[..., 1::2] = rng.uniform(-1.5, 1.5, (frames, count, 2))
    weights = rng.integers(0, 256, (frames, count)).astype(np.int32)
    for given in (None, weights):
        counts = None if given is None else given.astype(np.uint32)
        expected = vote(lines, counts, bins=bins, search="full")
        tensor = None if given is None else torch.from_numpy(given).cuda()
        winner = op.hough_vote(torch.from_numpy(lines).cuda(), tensor, bins=bins)
        assert (winner.cell.cpu().numpy() == expected.cell).all(), (frames, count, bins)
        assert (winner.votes.cpu().numpy() == expected.votes).all(), (frames, count, bins)
rows = np.ones((5, 6, 4000))
rows[:, :2] = rng.uniform(-0.5, 0.5, (5, 2, 4000))
rows[:, 2:4] = rows[:, :2] + rng.normal(0, 1e-3, (5, 2, 4000))
rows[:, 4] = 400.0
start = torch.zeros(5, 3, dtype=torch.float64)
counts = torch.tensor([4000, 3000, 31, 1, 0], dtype=torch.int32)
for given in (None, counts):
    expected = op.so3_refine(torch.from_numpy(rows), start, first_scale=0.9, counts=given)
    inputs = [torch.from_numpy(rows).cuda(), start.cuda()]
    on_gpu = None if given is None else given.cuda()
    found = op.so3_refine(*inputs, first_scale=0.9, counts=on_gpu)
    assert (found.solved.cpu() == expected.solved).all()
    solved = expected.solved
    assert (found.rotvec.cpu() - expected.rotvec)[solved].abs().max() < 1e-9
print(json.dumps(native.source()))
"""


def run_python(code, *prefix, **environment):
    result = subprocess.run(
        [*prefix, sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return json.loads([line for line in result.stdout.splitlines() if line[:2] != "=="][-1])


@pytest.fixture(scope="module")
def library():
    """The prebuilt library in its place, built for this GPU if it is not there yet."""
    if native.LIBRARY.is_file():
        yield native.LIBRARY
        return
    if shutil.which("nvcc") is None and "CUDA_HOME" not in os.environ:
        pytest.skip("nvcc is not installed: it builds the CUDA op")
    build = subprocess.run(
        [sys.executable, str(ROOT / "tools/build_cuda.py")], capture_output=True, text=True
    )
    assert build.returncode == 0, build.stdout + build.stderr
    yield native.LIBRARY
    native.LIBRARY.unlink()


@pytest.mark.slow
def test_nvrtc_equals_numba():
    assert run_python(WORK, VISIONLAB_NATIVE="nvrtc") == "nvrtc"


@pytest.mark.slow
def test_the_prebuilt_ops_equal_numba(library):
    assert run_python(WORK, VISIONLAB_NATIVE="prebuilt") == "prebuilt"


@pytest.fixture(scope="module")
def sanitizer():
    places = [os.environ.get("CUDA_HOME", ""), "/usr/local/cuda"]
    found = shutil.which("compute-sanitizer") or next(
        (str(p) for place in places if (p := Path(place, "bin/compute-sanitizer")).is_file()), None
    )
    if found is None:
        pytest.skip("compute-sanitizer is not installed")
    return found


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "initcheck", "synccheck"])
def test_compute_sanitizer_finds_nothing(sanitizer, tool):
    command = (sanitizer, "--tool", tool, "--error-exitcode", "9")
    # torch's caching allocator would hide accesses beyond a tensor's end
    environment = {"VISIONLAB_NATIVE": "nvrtc", "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    assert run_python(WORK, *command, **environment) == "nvrtc"
