import numpy as np
import pytest
import torch

from visionlab.rotation import batched, so3
from visionlab.rotation.lines import Grid
from visionlab.rotation.lines import lines_from_plane as lines_numpy
from visionlab.rotation.refinement import THIN_ABOVE, irls_numpy
from visionlab.rotation.voting import vote

FOCAL = 413.75
CUDA = pytest.param("cuda", marks=pytest.mark.gpu)
DEVICES = ["cpu", CUDA]


def crowd(seed, *, frames, count, noise_px=0.3, movers=0.4):
    """(rotvec (B, 3), plane0, plane1 (B, N, 2)): rotating cameras, movers and noise."""
    rng = np.random.default_rng(seed)
    rotvec = rng.uniform(-0.03, 0.03, (frames, 3))
    plane0 = rng.uniform((-0.58, -0.33), (0.58, 0.33), (frames, count, 2))
    rays = np.concatenate([plane0, np.ones((frames, count, 1))], -1)
    moved = np.einsum("bji,bnj->bni", so3.exp(rotvec), rays)
    plane1 = moved[..., :2] / moved[..., 2:] + rng.normal(0, noise_px / FOCAL, plane0.shape)
    moving = rng.random((frames, count)) < movers
    plane1[moving] += rng.normal(0, 6 / FOCAL, (int(moving.sum()), 2))
    return rotvec, plane0, plane1


def rows_of(plane0, plane1, weight=None):
    frames, count = plane0.shape[:2]
    weight = np.ones((frames, count)) if weight is None else weight
    focal = np.full((frames, count), FOCAL)
    return np.concatenate([np.stack([*np.moveaxis(p, -1, 0)], 1) for p in (plane0, plane1)] + [
        np.stack([focal, weight], 1)], 1)  # fmt: skip


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("geometry", ["exact", "linear"])
def test_lines_are_bit_equal_to_numpy(device, geometry):
    rng = np.random.default_rng(0)
    plane0 = rng.uniform(-4.5, 4.5, (7, 2000, 2))  # some beyond 75 degrees
    plane1 = plane0 + rng.normal(0, 0.05, plane0.shape)
    plane1[0, :5] = np.nan
    plane1[1, :5] = np.inf
    grid = Grid(1e-3, 141)
    expected = lines_numpy(plane0, plane1, grid=grid, geometry=geometry)
    lines = batched.lines_from_plane(
        *(torch.from_numpy(p).to(device) for p in (plane0, plane1)), grid=grid, geometry=geometry
    ).cpu()
    assert 0 < np.isnan(expected).all(-1).sum() < expected.shape[0] * expected.shape[1]
    # the bits, not the values: -0.0 and 0.0 differ, NaN equals NaN
    finite = ~np.isnan(expected)
    np.testing.assert_array_equal(torch.isnan(lines).numpy(), ~finite)
    np.testing.assert_array_equal(
        lines.numpy().view(np.int64)[finite], expected.view(np.int64)[finite]
    )


@pytest.mark.parametrize("geometry", ["exact", "linear"])
def test_one_grid_of_points_serves_all_frames(geometry):
    _, plane0, plane1 = crowd(1, frames=3, count=50)
    grid = Grid(1e-3, 141)
    shared = torch.from_numpy(plane0[0])
    lines = batched.lines_from_plane(shared, torch.from_numpy(plane1), grid=grid, geometry=geometry)
    repeated = np.broadcast_to(plane0[0], plane1.shape)
    expected = lines_numpy(repeated, plane1, grid=grid, geometry=geometry)
    np.testing.assert_array_equal(lines.numpy(), expected)


@pytest.mark.parametrize("geometry", ["exact", "linear"])
def test_cells_decode_as_on_the_host(geometry):
    grid = Grid(5e-3, 41)
    cells = np.array([0, grid.bins**3 - 1, grid.bins**3 // 2, 12345])
    decoded = batched.decode(torch.from_numpy(cells), grid=grid, geometry=geometry)
    np.testing.assert_allclose(decoded.numpy(), grid.rotvec(cells, geometry), atol=1e-16)
    assert batched.decode(torch.tensor([-1]), grid=grid).tolist() == [[0.0, 0.0, 0.0]]


def test_exp_equals_so3():
    rng = np.random.default_rng(2)
    rotvec = rng.normal(size=(200, 3))
    rotvec *= (rng.uniform(0, 2.9, 200) / np.linalg.norm(rotvec, axis=1))[:, None]
    rotvec[:5] *= 1e-9
    rotvec[5] = 0
    matrix = batched.exp(torch.from_numpy(rotvec))
    np.testing.assert_allclose(matrix.numpy(), so3.exp(rotvec), atol=1e-15)


@pytest.mark.parametrize("device", DEVICES)
def test_votes_equal_the_oracle(device):
    truth, plane0, plane1 = crowd(3, frames=6, count=300)
    grid = Grid(1e-3, 141)
    weights = np.random.default_rng(3).integers(0, 256, plane0.shape[:2]).astype(np.int32)
    lines = lines_numpy(plane0, plane1, grid=grid)
    expected = vote(lines, weights.astype(np.uint32), bins=grid.bins, backend="numpy")
    tensors = (torch.from_numpy(a).to(device) for a in (plane0, plane1, weights))
    rotvec, winner = batched.vote(*tensors, grid=grid)
    np.testing.assert_array_equal(winner.cell.cpu(), expected.cell)
    np.testing.assert_array_equal(winner.votes.cpu(), expected.votes)
    assert np.abs(rotvec.cpu().numpy() - truth).max() < 4e-3


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("scale", [None, 0.5])
@pytest.mark.parametrize("count", [400, THIN_ABOVE + 900])
def test_refinement_equals_the_numpy_twin(device, scale, count):
    truth, plane0, plane1 = crowd(4, frames=4, count=count)
    weight = np.random.default_rng(4).uniform(0, 1, plane0.shape[:2])
    weight[1, ::5] = 0
    weight[2, ::3] = 0
    rows = rows_of(plane0, plane1, weight)
    start = truth + np.random.default_rng(5).normal(0, 5e-4, truth.shape)
    on_device = torch.from_numpy(rows).to(device)
    result = batched.refine(
        on_device, torch.from_numpy(start).to(device), first_scale=1.0, scale=scale
    )
    ratios = result.inlier_ratio(on_device[:, 5]).cpu().numpy()
    for i in range(len(rows)):
        used = np.ascontiguousarray(rows[i][:, weight[i] > 0])
        twin = irls_numpy(used, start[i], first_scale=1.0, scale=scale)
        # the automatic scale is a histogram's median here, the twin's is exact
        np.testing.assert_allclose(result.rotvec[i].cpu(), twin.rotvec, atol=1e-5)
        np.testing.assert_allclose(result.sigma[i].cpu(), twin.sigma, rtol=0.02)
        np.testing.assert_allclose(result.covariance[i].cpu(), twin.covariance, rtol=0.1)
        expected = used[5] @ twin.inliers() / used[5].sum()
        np.testing.assert_allclose(ratios[i], expected, atol=0.01)
    assert result.solved.all()


def test_dropping_vectors_equals_never_having_had_them():
    truth, plane0, plane1 = crowd(8, frames=2, count=300)
    weight = np.ones(plane0.shape[:2])
    weight[:, ::4] = 0
    rows = torch.from_numpy(rows_of(plane0, plane1, weight))
    start = torch.from_numpy(truth)
    dropped = batched.refine(rows, start, first_scale=1.0)
    kept = rows[:, :, torch.from_numpy(weight[0] > 0)]
    alone = batched.refine(kept, start, first_scale=1.0, complete=True)
    assert torch.equal(dropped.rotvec, alone.rotvec)
    assert torch.equal(dropped.sigma, alone.sigma)


def test_a_frame_that_fixes_no_rotation_stays_and_spoils_no_other():
    truth, plane0, plane1 = crowd(6, frames=3, count=100)
    rows = rows_of(plane0, plane1)
    alone = batched.refine(torch.from_numpy(rows[:1]), torch.from_numpy(truth[:1]), first_scale=1.5)
    rows[1, 5] = 0  # nothing left
    rows[2, :4] = 0  # all vectors at one point: the roll is free
    result = batched.refine(torch.from_numpy(rows), torch.from_numpy(truth), first_scale=1.5)
    assert result.solved.tolist() == [True, False, False]
    np.testing.assert_allclose(result.rotvec[1:], truth[1:], atol=1e-12)
    np.testing.assert_array_equal(result.rotvec[0], alone.rotvec[0])
    assert torch.isfinite(result.rotvec).all()
    twin = irls_numpy(rows[2], truth[2], first_scale=1.5, scale=None)
    assert twin.covariance is None


def test_whole_chain_from_planes_to_rotations():
    truth, plane0, plane1 = crowd(7, frames=8, count=600)
    grid = Grid(1e-3, 141)
    tensors = [torch.from_numpy(p) for p in (plane0, plane1)]
    start, _ = batched.vote(*tensors, grid=grid)
    rows = torch.from_numpy(rows_of(plane0, plane1))
    refined = batched.refine(rows, start, first_scale=1.5).rotvec.numpy()
    coarse = np.abs(start.numpy() - truth).max(1)
    fine = np.abs(refined - truth).max(1)
    assert np.median(fine) < 2e-4 < np.median(coarse)
