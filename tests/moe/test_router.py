"""A router by hand: gates, counts, probabilities; pruned columns; what cannot be chosen."""

import pytest
import torch

from visionlab.moe.router import Routing, TaskRouter


def router(columns: list[int], **options: object) -> TaskRouter:
    made = TaskRouter(3, columns, **({"top_k": 2} | options))
    with torch.no_grad():
        made.weight.copy_(torch.eye(3)[[i % 3 for i in range(len(columns))]])
    return made


X = torch.tensor([[3.0, 1.0, 2.0], [0.0, 5.0, -1.0]])


def test_the_best_experts_come_first_with_a_softmax_over_them() -> None:
    logits, experts, gates = router([0, 1, 2])(X)
    assert torch.equal(logits, X)
    assert experts.tolist() == [[0, 2], [1, 0]]
    torch.testing.assert_close(gates, torch.tensor([[3.0, 2.0], [5.0, 0.0]]).softmax(1))
    _, _, whole = router([0, 1, 2], normalize=False)(X)
    torch.testing.assert_close(whole, X.softmax(1).gather(1, experts))


def test_columns_name_experts_and_dropped_ones_are_never_chosen() -> None:
    pruned = router([7, -1, 4], top_k=1)
    assert pruned.selectable == [7, 4]
    assert pruned(X)[1].tolist() == [[7], [7]]
    pruned.remap([-1, -1, 9])
    assert pruned(X)[1].tolist() == [[9], [9]]
    with pytest.raises(ValueError, match="top_k=1, but the router can choose among 0 experts"):
        pruned.remap([-1, -1, -1])


@pytest.mark.parametrize("top_k", [0, 3])
def test_more_experts_than_there_are(top_k: int) -> None:
    with pytest.raises(ValueError, match="choose among 2 experts; pass a top_k from 1 to 2"):
        router([0, -1, 1], top_k=top_k)


@pytest.mark.parametrize("noise", [-0.1, float("nan"), float("inf")])
def test_noise_is_a_standard_deviation(noise: float) -> None:
    with pytest.raises(ValueError, match="noise_std must be 0 or a positive number"):
        router([0, 1, 2], noise_std=noise)


def test_noise_is_drawn_in_training_only() -> None:
    noisy = router([0, 1, 2], noise_std=0.5)
    assert not torch.equal(noisy(X)[0], X)
    assert torch.equal(noisy.eval()(X)[0], X)


def test_what_a_routing_counts_and_sums() -> None:
    made = router([5, -1, 3])
    logits, experts, gates = made(X)
    routing = Routing("a", logits, experts, gates, 6, made.expert_of_column)
    p = X[:, [0, 2]].softmax(1)
    probability = torch.zeros(2, 6)
    probability[:, 5], probability[:, 3] = p[:, 0], p[:, 1]
    torch.testing.assert_close(routing.probability_sum(), probability.sum(0))
    torch.testing.assert_close(routing.mean_probability(), probability.mean(0))
    assert routing.counts().tolist() == [0, 0, 0, 2, 0, 2]
    assert routing.tokens() == 2


def test_masked_tokens_count_for_nothing() -> None:
    made = router([0, 1, 2])
    logits, experts, gates = made(X)
    mask = torch.tensor([True, False])
    routing = Routing("a", logits, experts, gates, 3, made.expert_of_column, token_mask=mask)
    assert routing.counts().tolist() == [1, 0, 1]
    assert routing.tokens() == 1
    torch.testing.assert_close(routing.mean_probability(), X[0].softmax(0))
    none = Routing("a", logits, experts, gates, 3, made.expert_of_column, token_mask=~mask & mask)
    assert not none.mean_probability().any()  # and no division by zero
