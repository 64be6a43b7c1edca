"""The losses on routing together: weights, terms, and the table in the checkpoint."""

import math

import pytest
import torch

from tests.moe.routing_fixture import TASKS, E, routing_of, task_logits
from visionlab.moe import (
    MoELayer,
    MutualInformation,
    RoutingLoss,
    balance_loss,
    concentration_loss,
    z_loss,
)


def test_training_on_one_task_at_a_time_raises_the_information() -> None:
    torch.manual_seed(0)
    layer = MoELayer(16, 8, 8, 2, tasks=TASKS)
    loss = RoutingLoss.for_model(layer, information=1.0, decay=0.5)
    optimizer = torch.optim.Adam([p for n, p in layer.named_parameters() if "routers" in n], 0.02)
    x = torch.randn(64, 16) + 1
    seen = []
    for step in range(150):
        optimizer.zero_grad()
        routing = layer(x, TASKS[step % 3]).routing
        sum(loss([routing]).values()).backward()
        optimizer.step()
        loss.step()
        seen.append(loss.information()["normalised"].item())
    assert seen[5] < 0.05
    assert seen[-1] > 0.8


def test_mixture_balance_gradient_and_value() -> None:
    logits = task_logits()
    loss = RoutingLoss(MutualInformation([E], TASKS), information=0, balance=2.0).double()
    value = loss(*[[routing_of(x, t)] for t, x in logits.items()])["balance"]
    mixture = torch.stack([x.softmax(-1).mean(0) for x in logits.values()]).mean(0)
    expected = 2 * (E * mixture.square().sum() - 1)
    torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(
        torch.autograd.grad(value, logits["seg"]),
        torch.autograd.grad(expected, logits["seg"]),
        rtol=1e-5,
        atol=1e-9,
    )


def test_other_losses_by_hand() -> None:
    even = routing_of(torch.zeros(8, E), "cls")
    assert z_loss(even).item() == pytest.approx(math.log(E) ** 2, rel=1e-5)
    assert concentration_loss(even, 4).item() == pytest.approx(0.75)
    assert balance_loss(even).item() == pytest.approx(1.0)
    sharp = torch.full((8, E), -30.0)
    sharp[:, :4] = 30.0
    assert concentration_loss(routing_of(sharp, "cls"), 4).item() == pytest.approx(0, abs=1e-6)
    assert balance_loss(routing_of(sharp, "cls")).item() == pytest.approx(E / 4)


def test_state_dict_carries_the_table_and_surgery_takes_rows_over() -> None:
    layer = MoELayer(16, 8, 8, 2, tasks=TASKS)
    loss = RoutingLoss.for_model(layer)
    loss([layer(torch.randn(9, 16), "det").routing])
    loss.step()
    again = RoutingLoss.for_model(layer)
    again.load_state_dict(loss.state_dict())
    assert torch.equal(again.table.table(), loss.table.table())
    layer.add_task("depth")
    layer.add_experts(2, tasks=["depth"])
    grown = RoutingLoss.for_model(layer, previous=loss)
    assert torch.equal(grown.table.table()[:, 1, :8], loss.table.table()[:, 1])
    assert grown.table.mass.tolist() == pytest.approx([0, 0.01, 0, 0])
    layer.keep_experts(range(6))
    assert RoutingLoss.for_model(layer, previous=grown).table.mass.sum() == 0


def test_bad_input_gets_one_clear_sentence() -> None:
    layer = MoELayer(16, 8, 8, 2, tasks=TASKS)
    with pytest.raises(ValueError, match=r"weights of routing losses are 0 or .*got z=-1"):
        RoutingLoss.for_model(layer, z=-1.0)
    with pytest.raises(ValueError, match="experts at least 1; got concentration_experts=0"):
        RoutingLoss.for_model(layer, concentration_experts=0)
    with pytest.raises(ValueError, match="the prior must give each task a positive share"):
        RoutingLoss.for_model(layer, prior=dict.fromkeys(TASKS, math.nan))
