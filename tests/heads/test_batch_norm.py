import pytest
import torch
from torch import nn

from tests.ranks import on_ranks
from visionlab.heads.batch_norm import GlobalBatchNorm1d

SPLIT = 5  # of 8 rows: one rank holds five, the other three


def pair(affine: bool) -> tuple[nn.BatchNorm1d, GlobalBatchNorm1d, torch.Tensor]:
    plain = nn.BatchNorm1d(4, affine=affine, momentum=0.2)
    ours = GlobalBatchNorm1d(4, affine=affine, momentum=0.2)
    return plain, ours, torch.randn(8, 4, generator=torch.Generator().manual_seed(1)) * 3 + 1


@pytest.mark.parametrize("affine", [True, False])
def test_one_process_is_batch_norm(affine):
    plain, ours, x = pair(affine)
    assert torch.equal(plain(x), ours(x))
    assert torch.equal(plain.eval()(x), ours.eval()(x))
    assert plain.state_dict().keys() == ours.state_dict().keys()


def rank_part(rank: int, folder: str) -> tuple[torch.Tensor, ...]:
    torch.distributed.init_process_group("gloo")
    _, ours, x = pair(affine=True)
    part = (x[:SPLIT] if rank == 0 else x[SPLIT:]).clone().requires_grad_()
    out = ours(part)
    (out**3).sum().backward()
    gradient, weight = part.grad, ours.weight.grad
    torch.distributed.destroy_process_group()
    return tuple(t.detach().numpy() for t in (out, gradient, weight, ours.running_mean,
                                              ours.running_var))  # fmt: skip


@pytest.mark.slow
def test_two_ranks_of_unequal_size_are_one_batch(tmp_path):
    ranks = on_ranks(rank_part, str(tmp_path))
    plain, _, x = pair(affine=True)
    x.requires_grad_()
    out = plain(x)
    (out**3).sum().backward()
    (o0, g0, w0, *s0), (o1, g1, w1, *s1) = [[torch.from_numpy(t) for t in r] for r in ranks]
    close = {"rtol": 1e-4, "atol": 1e-4}
    torch.testing.assert_close(torch.cat([o0, o1]), out.detach(), **close)
    torch.testing.assert_close(torch.cat([g0, g1]), x.grad, **close)
    torch.testing.assert_close(w0 + w1, plain.weight.grad, **close)
    for ours, theirs in zip(s0, (plain.running_mean, plain.running_var)):
        torch.testing.assert_close(ours, theirs)
    assert all(torch.equal(a, b) for a, b in zip(s0, s1))
