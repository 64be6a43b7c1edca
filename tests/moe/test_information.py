"""Mutual information of tasks and experts, also where a batch holds one task."""

import math

import pytest
import torch
import torch.distributed as dist

from tests.moe.routing_fixture import TASKS, E, routing_of, task_logits
from tests.ranks import on_ranks
from visionlab.moe import MutualInformation, mutual_information, z_loss


def joint(logits: dict[str, torch.Tensor], prior: torch.Tensor) -> torch.Tensor:
    rows = torch.stack([x.softmax(-1).mean(0) for x in logits.values()])
    return -mutual_information(rows, prior)


def published(logits: torch.Tensor) -> torch.Tensor:
    """Mod-Squad's form on a batch of one task: P(t) and P(e) from the batch itself."""
    table = logits.softmax(-1).mean(0, keepdim=True)
    ratio = table / (table.sum(0, keepdim=True) * table.sum(1, keepdim=True)) + 1e-4
    return -(table * ratio.log()).sum()


@pytest.mark.parametrize("prior", [None, {"cls": 6.0, "det": 3.0, "seg": 1.0}])
def test_gradient_equals_the_joint_batch(prior: dict[str, float] | None) -> None:
    logits = task_logits()
    p = torch.tensor([0.6, 0.3, 0.1] if prior else [1 / 3] * 3, dtype=torch.float64)
    loss = MutualInformation([E], TASKS, prior=prior).double()
    value = loss(*[[routing_of(x, t)] for t, x in logits.items()])
    torch.testing.assert_close(value, joint(logits, p), rtol=1e-6, atol=1e-7)
    ours = torch.autograd.grad(value, list(logits.values()))
    theirs = torch.autograd.grad(joint(logits, p), list(logits.values()))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-9)


def test_one_task_batch_has_a_gradient_where_the_published_form_has_none() -> None:
    logits = task_logits()
    loss = MutualInformation([E], TASKS).double()
    loss(*[[routing_of(x, t)] for t, x in logits.items()])
    loss.step()
    (ours,) = torch.autograd.grad(loss([routing_of(logits["det"], "det")]), logits["det"])
    (theirs,) = torch.autograd.grad(published(logits["det"]), logits["det"])
    (whole,) = torch.autograd.grad(
        joint(logits, torch.full((3,), 1 / 3, dtype=torch.float64)), logits["det"]
    )
    # the pull on the task's mean logits, which does not depend on the number of tokens
    assert ours.sum(0).norm() >= 0.02
    assert theirs.sum(0).norm() <= 1e-5
    torch.testing.assert_close(ours, whole, rtol=1e-5, atol=1e-9)


def test_table_moves_once_per_step_with_bias_correction_and_never_in_eval() -> None:
    logits = task_logits()
    loss = MutualInformation([E], TASKS, decay=0.9).double()
    loss([routing_of(logits["cls"], "cls")])
    loss([routing_of(logits["cls"], "cls")])  # a second micro-batch of the same step
    assert loss.mass.sum() == 0
    loss.step()
    row = logits["cls"].softmax(-1).mean(0)
    torch.testing.assert_close(loss.table()[0, 0], row.detach())
    assert loss.mass.tolist() == pytest.approx([0.1, 0, 0])
    before = {k: v.clone() for k, v in loss.state_dict().items()}
    loss.eval()
    loss([routing_of(logits["det"], "det")])
    loss.step()
    assert all(torch.equal(v, before[k]) for k, v in loss.state_dict().items())


def test_tasks_never_seen_are_left_out() -> None:
    logits = task_logits()
    loss = MutualInformation([E], TASKS).double()
    assert loss([routing_of(logits["cls"], "cls")]).item() == pytest.approx(0, abs=1e-9)
    pair = loss([routing_of(logits["cls"], "cls")], [routing_of(logits["seg"], "seg")])
    two = {t: logits[t] for t in ("cls", "seg")}
    expected = joint(two, torch.full((2,), 0.5, dtype=torch.float64))
    assert pair.item() == pytest.approx(expected.item(), rel=1e-6)


def test_masked_tokens_do_not_count() -> None:
    logits = task_logits()["cls"]
    mask = torch.arange(16) < 10
    full, cut = routing_of(logits, "cls", mask), routing_of(logits[:10], "cls")
    torch.testing.assert_close(full.mean_probability(), cut.mean_probability())
    torch.testing.assert_close(z_loss(full), z_loss(cut))
    assert torch.equal(full.counts(), cut.counts())


def test_mutual_information_by_hand() -> None:
    half = torch.tensor([0.5, 0.5])
    disjoint = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert mutual_information(disjoint, half).item() == pytest.approx(math.log(2))
    equal = torch.tensor([[0.3, 0.7], [0.3, 0.7]])
    assert mutual_information(equal, half).item() == pytest.approx(0, abs=1e-7)


def test_bad_input() -> None:
    loss = MutualInformation([E, E], TASKS)
    one = routing_of(torch.zeros(3, E), "cls")
    with pytest.raises(ValueError, match="has 2 layers here, got 1"):
        loss([one])
    with pytest.raises(ValueError, match="no task 'depth' in the routing loss"):
        loss([routing_of(torch.zeros(3, E), "depth")] * 2)
    with pytest.raises(ValueError, match="positive share"):
        MutualInformation([E], TASKS, prior={"cls": 1.0})
    with pytest.raises(ValueError, match=r"decay must be in \[0, 1\), got 1"):
        MutualInformation([E], TASKS, decay=1.0)


def _two_ranks(rank: int, out: str) -> None:
    dist.init_process_group("gloo")
    logits = task_logits(16)
    loss = MutualInformation([E], TASKS).double()
    # rank 0: 10 tokens of cls; rank 1: the other 6 tokens of cls, then seg alone on rank 1
    part = logits["cls"][:10] if rank == 0 else logits["cls"][10:]
    forwards = [[routing_of(part, "cls")]]
    if rank == 1:
        forwards.append([routing_of(logits["seg"], "seg")])
    loss(*forwards).backward()
    loss.step()
    grads = torch.stack(
        [x.grad if x.grad is not None else torch.zeros_like(x) for x in logits.values()]
    )
    dist.all_reduce(grads)
    if rank == 0:
        torch.save({"grads": grads / 2, "table": loss.table()}, out)
    dist.destroy_process_group()


def test_two_ranks_equal_one(tmp_path: pytest.TempPathFactory) -> None:
    on_ranks(_two_ranks, f"{tmp_path}/out")
    got = torch.load(f"{tmp_path}/out", weights_only=True)
    logits = task_logits(16)
    loss = MutualInformation([E], TASKS).double()
    loss([routing_of(logits["cls"], "cls")], [routing_of(logits["seg"], "seg")]).backward()
    loss.step()
    for i, t in enumerate(TASKS):
        expected = logits[t].grad if logits[t].grad is not None else torch.zeros(16, E).double()
        torch.testing.assert_close(got["grads"][i], expected, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(got["table"], loss.table(), rtol=1e-6, atol=1e-9)


def test_a_table_needs_layers_and_tasks() -> None:
    for experts, tasks in (([], ["a"]), ([4], []), ([0], ["a"])):
        with pytest.raises(ValueError, match="the table needs layers with experts, and tasks"):
            MutualInformation(experts, tasks)
