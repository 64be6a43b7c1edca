"""A ViT with MoE layers keeps timm's protocol; task and routing are arguments."""

import pytest
import torch

from tests.moe.small_vit import dense, images, moe
from visionlab.moe import Routing, insert_moe


def test_routing_is_collected_in_block_order() -> None:
    model, routing = moe(attention=True), []
    model.forward_features(images(), "cls", routing=routing)
    assert [r.layer for r in routing] == [
        *("blocks.1.attn", "blocks.1.mlp", "blocks.3.attn", "blocks.3.mlp")
    ]
    assert all(isinstance(r, Routing) and r.task == "cls" for r in routing)


def test_task_is_an_argument_not_a_state() -> None:
    model = moe()
    first = model(images(), task="cls")
    model(images(), task="seg")
    assert torch.equal(model(images(), task="cls"), first)
    assert not torch.equal(model(images(), task="seg"), first)


@pytest.mark.parametrize("size", [32, 48])
def test_intermediates_follow_timm(size: int) -> None:
    vit = dense()
    model = insert_moe(vit, num_experts=2, top_k=2, upcycle=True).eval()
    options = {"norm": True, "output_fmt": "NCHW"}
    final, maps = model.forward_intermediates(images(size), [0, 3], **options)
    expected_final, expected = vit.forward_intermediates(images(size), [0, 3], **options)
    torch.testing.assert_close(final, expected_final, rtol=1e-5, atol=2e-5)
    for a, b in zip(maps, expected, strict=True):
        assert a.shape == (2, 48, size // 8, size // 8)
        torch.testing.assert_close(a, b, rtol=1e-5, atol=2e-5)
    pairs = model.forward_intermediates(
        images(size), 1, return_prefix_tokens=True, intermediates_only=True, output_fmt="NLC"
    )
    assert [t.shape for t in pairs[0]] == [(2, (size // 8) ** 2, 48), (2, 1, 48)]
    early = model.forward_intermediates(images(), [1], stop_early=True, intermediates_only=True)
    late = model.forward_intermediates(images(), [1], intermediates_only=True)
    assert torch.equal(early[0], late[0])


def test_gradient_checkpointing_changes_nothing_and_counts_once() -> None:
    grads = []
    for enable in (False, True):
        torch.manual_seed(0)
        model, routing = moe(attention=True).train(), []
        model.set_grad_checkpointing(enable)
        model(images(), task="seg", routing=routing).square().sum().backward()
        assert len(routing) == 4
        grads.append({n: p.grad for n, p in model.named_parameters()})
    for name, grad in grads[0].items():
        assert (grad is None) == (grads[1][name] is None)
        if grad is not None:
            torch.testing.assert_close(grad, grads[1][name])


def test_padded_patches_change_nothing() -> None:
    model = moe(attention=True)
    padded = torch.zeros(1, 3, 32, 48)
    padded[..., :32] = images()[:1]
    mask = (torch.arange(6) < 4).repeat(4)[None]
    # position embeddings depend on the grid: compare with another content in the padding
    other = padded.clone()
    other[..., 32:] = 5.0
    routing: list[Routing] = []
    a = model.forward_intermediates(padded, 1, "cls", token_mask=mask, intermediates_only=True)
    b = model.forward_intermediates(
        other, 1, "cls", token_mask=mask, intermediates_only=True, routing=routing
    )
    torch.testing.assert_close(a[0][..., :4], b[0][..., :4], rtol=1e-6, atol=1e-6)
    assert int(routing[0].counts().sum()) == (16 + 1) * routing[0].experts.shape[1]
