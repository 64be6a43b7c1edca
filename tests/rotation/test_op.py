import numpy as np
import pytest
import torch

from visionlab.rotation import op, so3
from visionlab.rotation.refinement import refine
from visionlab.rotation.voting import vote

CPU = "cpu"
CUDA = pytest.param("cuda", marks=pytest.mark.gpu)


def random_case(seed, *, frames=3, count=80, bins=9):
    rng = np.random.default_rng(seed)
    lines = rng.uniform(-0.5 * bins, 1.5 * bins, (frames, count, 4))
    lines[..., 1::2] = rng.uniform(-1.5, 1.5, (frames, count, 2))
    lines[rng.random((frames, count)) < 0.1] = np.nan
    weights = rng.integers(0, 256, (frames, count)).astype(np.int32)
    return torch.from_numpy(lines), torch.from_numpy(weights)


@pytest.mark.parametrize("device", [CPU, CUDA])
@pytest.mark.parametrize("weighted", [False, True])
def test_equals_the_oracle(device, weighted):
    for seed in range(5):
        lines, weights = random_case(seed)
        counts = weights.numpy().astype(np.uint32) if weighted else None
        expected = vote(lines.numpy(), counts, bins=9, backend="numpy")
        winner = op.hough_vote(lines.to(device), weights.to(device) if weighted else None, bins=9)
        assert winner.cell.device.type == winner.votes.device.type == device
        np.testing.assert_array_equal(winner.cell.cpu(), expected.cell)
        np.testing.assert_array_equal(winner.votes.cpu(), expected.votes)


def random_rows(seed, *, frames=3, count=60):
    """Vectors that turn by up to .02 rad about random axes, with noise; starts half a bin off."""
    rng = np.random.default_rng(seed)
    truth = rng.uniform(-0.02, 0.02, (frames, 3))
    rows = np.ones((frames, 6, count))
    rows[:, :2] = rng.uniform(-0.5, 0.5, (frames, 2, count))
    moved = np.einsum("bji,bjn->bin", so3.exp(truth), np.insert(rows[:, :2], 2, 1.0, axis=1))
    rows[:, 2:4] = moved[:, :2] / moved[:, 2:] + rng.normal(0, 5e-4, (frames, 2, count))
    rows[:, 4] = 400.0
    rows[:, 5] = rng.uniform(0.2, 1, (frames, count))
    start = truth + rng.normal(0, 5e-4, truth.shape)
    return torch.from_numpy(rows), torch.from_numpy(start)


@pytest.mark.parametrize("device", [CPU, CUDA])
def test_opcheck(device):
    lines, weights = (tensor.to(device) for tensor in random_case(1))
    rows, start = (tensor.to(device) for tensor in random_rows(1))
    counts = torch.tensor([60, 40, 0], dtype=torch.int32, device=device)
    ops = op.registered_ops()
    for arguments in ((lines, None, 9), (lines, weights, 9), (lines[:1], weights[:1], 4)):
        torch.library.opcheck(ops[op.VOTE], arguments)
    for arguments in ((rows, None, start, 1.0, 0.0), (rows, counts, start, 1.0, 0.5)):
        torch.library.opcheck(ops[op.REFINE], arguments)


@pytest.mark.parametrize("device", [CPU, CUDA])
@pytest.mark.parametrize("scale", [None, 0.4])
def test_refinement_equals_single_frames(device, scale):
    rows, start = random_rows(2, frames=4, count=200)
    counts = torch.tensor([200, 120, 3, 0], dtype=torch.int32)
    found = op.so3_refine(
        rows.to(device), start.to(device), first_scale=1.0, scale=scale, counts=counts.to(device)
    )
    assert found.solved.tolist()[0::3] == [True, False]
    for i, count in enumerate(counts.tolist()[:3]):
        vectors = np.ascontiguousarray(rows[i, :, :count])
        single = refine(vectors, start[i].numpy(), first_scale=1.0, scale=scale)
        np.testing.assert_allclose(found.rotvec[i].cpu(), single.rotvec, atol=1e-9)
        np.testing.assert_allclose(found.sigma[i].cpu(), single.sigma, rtol=1e-5)
        np.testing.assert_allclose(found.covariance[i].cpu(), single.covariance, rtol=1e-4)
    np.testing.assert_allclose(found.rotvec[3].cpu(), start[3], atol=1e-12)


def test_messages_of_the_refinement():
    rows, start = random_rows(3)
    with pytest.raises(TypeError, match=r"rows and start must be float64, got torch\.float32 and"):
        op.so3_refine(rows.float(), start, first_scale=1.0)
    with pytest.raises(
        ValueError, match=r"rows must have shape \(B, 6, N\) and start \(B, 3\), got"
    ):
        op.so3_refine(rows[:, :5], start, first_scale=1.0)
    with pytest.raises(TypeError, match=r"counts must be int32, got torch\.int64"):
        op.so3_refine(rows, start, first_scale=1.0, counts=torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"counts of shape \(2,\) on cpu do not fit 3 frames"):
        op.so3_refine(rows, start, first_scale=1.0, counts=torch.zeros(2, dtype=torch.int32))
    for scales in ((0.0, None), (1.0, -1.0)):
        with pytest.raises(ValueError, match=r"scales must be positive numbers of px, got"):
            op.so3_refine(rows, start, first_scale=scales[0], scale=scales[1])


@pytest.mark.parametrize("device", [CPU, CUDA])
def test_odd_layouts_and_empty_batches(device):
    lines, weights = (tensor.to(device) for tensor in random_case(2, frames=6))
    strided = op.hough_vote(lines[::2], weights[::2], bins=9)
    expected = op.hough_vote(lines[::2].contiguous(), weights[::2].contiguous(), bins=9)
    assert torch.equal(strided.cell, expected.cell)
    assert torch.equal(strided.votes, expected.votes)
    assert op.hough_vote(lines[:0], bins=9).cell.shape == (0,)
    nothing = op.hough_vote(lines[:, :0], bins=9)
    assert nothing.cell.tolist() == [-1] * 6
    assert nothing.votes.tolist() == [0] * 6


def test_weights_below_one_never_vote():
    lines, weights = random_case(3)
    without = op.hough_vote(lines, weights, bins=9)
    negative = op.hough_vote(lines, torch.where(weights == 0, -5, weights), bins=9)
    assert torch.equal(without.cell, negative.cell)
    nobody = op.hough_vote(lines, torch.zeros_like(weights), bins=9)
    assert nobody.cell.tolist() == [-1] * 3


def test_lines_that_require_grad_are_taken():
    lines, _ = random_case(4)
    winner = op.hough_vote(lines.requires_grad_(), bins=9)
    assert not winner.votes.requires_grad


def test_works_inside_torch_compile_graphs():
    lines, _ = random_case(5)
    op.registered_ops()

    def share(lines):
        return torch.ops.visionlab.hough_vote(lines, None, 9)[:, 1] / lines.shape[1]

    compiled = torch.compile(share, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(lines), share(lines))


def test_messages():
    lines, weights = random_case(6)
    with pytest.raises(TypeError, match=r"lines must be float64, got torch\.float32"):
        op.hough_vote(lines.float(), bins=9)
    with pytest.raises(ValueError, match=r"lines must have shape \(B, N, 4\), got \(80, 4\)"):
        op.hough_vote(lines[0], bins=9)
    with pytest.raises(TypeError, match=r"weights must be int32 votes per line, got torch\.int64"):
        op.hough_vote(lines, weights.long(), bins=9)
    with pytest.raises(ValueError, match=r"weights of shape \(2, 80\) on cpu do not fit lines of"):
        op.hough_vote(lines, weights[:2], bins=9)
    for bins in (0, 1626):
        with pytest.raises(ValueError, match=rf"bins per axis must lie in 1\.\.1625, got {bins}"):
            op.hough_vote(lines, bins=bins)
