import numpy as np
import pytest
import torch

from visionlab.rotation import op
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


@pytest.mark.parametrize("device", [CPU, CUDA])
def test_opcheck(device):
    lines, weights = (tensor.to(device) for tensor in random_case(1))
    registered = op.registered_op()
    for arguments in ((lines, None, 9), (lines, weights, 9), (lines[:1], weights[:1], 4)):
        torch.library.opcheck(registered, arguments)


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
    op.registered_op()

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
