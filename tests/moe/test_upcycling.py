"""Experts from dense weights: the same output at the start, and free to part."""

import pytest
import torch

from tests.moe.small_vit import dense, images
from visionlab.moe import insert_moe


@pytest.mark.parametrize(
    ("options", "factor"),
    [
        ({"hidden_dim": 192}, 2.0),  # copies: k times the MLP's FLOPs
        ({}, 1.0),  # slices: equal FLOPs
        ({"attention": True}, None),
        ({"layers": "all", "attention": True, "hidden_dim": 192}, None),
    ],
)
@pytest.mark.parametrize("norms", [None, 1e-1])
def test_upcycled_output_is_equal_at_the_start(
    options: dict[str, object], factor: float | None, norms: float | None
) -> None:
    vit = dense(init_values=norms)
    before = {k: v.clone() for k, v in vit.state_dict().items()}
    new = insert_moe(vit, num_experts=6, top_k=2, tasks=("a", "b"), upcycle=True, **options)
    for task in ("a", "b"):
        got = new.eval().forward_features(images(), task)
        torch.testing.assert_close(got, vit.forward_features(images()), rtol=1e-5, atol=2e-5)
    assert all(torch.equal(v, before[k]) for k, v in vit.state_dict().items())
    if factor is not None:
        layer = dict(new.moe_layers())["blocks.1.mlp"]
        assert layer.hidden_dim * 2 == factor * 192


def test_upcycled_slices_can_part() -> None:
    """The k slices of a group get different gradients, so they do not stay tied."""
    new = insert_moe(dense(), num_experts=6, top_k=2, upcycle=True)
    new(images()).square().sum().backward()
    grad = new.blocks[1].mlp.routers["default"].weight.grad
    assert (grad[0] - grad[1]).abs().max() > 1e-6
