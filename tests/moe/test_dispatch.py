"""Tokens sorted by expert and brought back: by hand, against loops, and their gradients."""

import pytest
import torch

from visionlab.moe.dispatch import (
    collect,
    from_slots,
    make_plan,
    spread,
    sum_slots,
    to_slots,
    zero_unrouted,
)


def test_plan_sorts_by_expert_and_inverts() -> None:
    experts = torch.tensor([[2, 0], [0, 1], [2, 1]])
    plan = make_plan(experts, 4)
    assert plan.order.tolist() == [1, 2, 3, 5, 0, 4]
    assert plan.offsets.tolist() == [2, 4, 6, 6]
    assert plan.order[plan.position.flatten()].tolist() == list(range(6))


def test_masked_tokens_lie_behind_all_experts() -> None:
    experts = torch.tensor([[1, 0], [0, 1], [1, 0]])
    plan = make_plan(experts, 2, torch.tensor([True, False, True]))
    assert plan.ends() == [2, 4]
    assert plan.order.tolist() == [1, 5, 0, 4, 2, 3]
    assert plan.valid.squeeze(1).tolist() == [True] * 4 + [False] * 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("weighted", [False, True])
def test_sums_over_slots_are_the_loops(dtype: torch.dtype, weighted: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(10, 3, generator=generator).to(dtype)
    position = torch.randperm(10, generator=generator).view(5, 2)
    weights = torch.rand(5, 2, generator=generator).to(dtype) if weighted else None
    found = sum_slots(rows, position, weights)
    for n, places in enumerate(position.tolist()):
        picked = [rows[p] if weights is None else weights[n, j] * rows[p]
                  for j, p in enumerate(places)]  # fmt: skip
        torch.testing.assert_close(found[n], picked[0] + picked[1])


def test_there_and_back_sums_a_token_k_times_with_its_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    experts = torch.stack([torch.randperm(4, generator=generator)[:2] for _ in range(6)])
    plan = make_plan(experts, 4, torch.tensor([True] * 5 + [False]))

    def squared(x: torch.Tensor) -> torch.Tensor:
        return collect(zero_unrouted(spread(x, plan) ** 2, plan), plan)

    torch.testing.assert_close(squared(x)[:5], 2 * x[:5] ** 2)
    assert not squared(x)[5].any()
    assert torch.autograd.gradcheck(squared, x)


def test_slots_are_in_the_order_of_the_tokens_and_back() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    plan = make_plan(torch.tensor([[2, 0], [0, 1], [2, 1], [3, 0], [1, 3], [0, 2]]), 4)
    slots = to_slots(spread(x, plan), plan)
    assert torch.equal(slots, x[:, None].expand(6, 2, 3))
    assert torch.equal(from_slots(slots, plan), spread(x, plan))
    assert torch.autograd.gradcheck(lambda x: from_slots(to_slots(spread(x, plan), plan), plan), x)
