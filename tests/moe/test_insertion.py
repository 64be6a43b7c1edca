"""Inserting MoE layers into timm ViTs, and the protocol of the result."""

import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from visionlab.moe import MoEVisionTransformer, Routing, insert_moe
from visionlab.moe.insertion import chosen_layers


def dense(**options: object) -> VisionTransformer:
    torch.manual_seed(0)
    vit = timm.create_model(
        "vit_tiny_patch16_224",
        **{"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 4, "num_heads": 3}
        | {"num_classes": 0, "global_pool": "", "dynamic_img_size": True}
        | options,
    )
    for p in vit.parameters():  # as if trained: nothing is zero
        nn.init.normal_(p, std=0.15)
    return vit.eval()


def images(size: int = 32) -> torch.Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))


def moe(**options: object) -> MoEVisionTransformer:
    defaults = {"num_experts": 6, "top_k": 2, "tasks": ("cls", "seg")}
    return insert_moe(dense(), **(defaults | options)).eval()


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


def test_layout_rebuilds_the_model() -> None:
    model = moe(layers=[0, -1], attention=True)
    again = insert_moe(dense(), num_experts=6, top_k=2, layout=model.layout).eval()
    again.load_state_dict(model.state_dict())
    assert torch.equal(model(images(), task="seg"), again(images(), task="seg"))


def test_placements() -> None:
    assert chosen_layers("every_second", 6) == [1, 3, 5]
    assert chosen_layers("last_two", 6) == [4, 5]
    assert chosen_layers("last_half", 6) == [3, 4, 5]
    assert chosen_layers("all", 3) == [0, 1, 2]
    assert chosen_layers([-1, 0], 6) == [0, 5]


def test_bad_input_gets_one_clear_sentence() -> None:
    with pytest.raises(TypeError, match="insert_moe needs a timm VisionTransformer, got Linear"):
        insert_moe(nn.Linear(2, 2))
    with pytest.raises(TypeError, match="plain pre-norm blocks, got MoEBlock"):
        insert_moe(moe().vit, layers="all")
    with pytest.raises(
        ValueError, match=r"no placement 'every_secnd'. Did you mean 'every_second'"
    ):
        insert_moe(dense(), layers="every_secnd")
    with pytest.raises(ValueError, match=r"layers=\[4\] for a transformer of 4 blocks"):
        insert_moe(dense(), layers=[4])
    with pytest.raises(ValueError, match="top_k=0 with num_experts=4"):
        insert_moe(dense(), num_experts=4, top_k=0)
    with pytest.raises(ValueError, match="hidden_dim must be at least 1, got 0"):
        insert_moe(dense(), num_experts=4, top_k=2, hidden_dim=0)
    with pytest.raises(ValueError, match=r"names the layer 'blocks.7.mlp', the transformer has 4"):
        insert_moe(dense(), layout={"blocks.7.mlp": {"experts": [2], "routers": {}}})
    with pytest.raises(ValueError, match=r"needs .experts. and .routers., got \{\}"):
        insert_moe(dense(), layout={"blocks.0.mlp": {}})
    with pytest.raises(ValueError, match="cannot upcycle an MLP of width 192"):
        insert_moe(dense(), num_experts=5, top_k=2, hidden_dim=96, upcycle=True)
    with pytest.raises(ValueError, match="upcycling needs gates that sum to one"):
        insert_moe(dense(), num_experts=4, top_k=1, upcycle=True)
    with pytest.raises(ValueError, match="cannot upcycle a block with GELU"):
        insert_moe(dense(act_layer="gelu_tanh"), num_experts=4, top_k=2, upcycle=True)
    with pytest.raises(ValueError, match=r"no task 'clss' in this model. Did you mean 'cls'"):
        moe()(images(), task="clss")
    with pytest.raises(ValueError, match=r"token_mask must be \(images, patches\) = \(2, 16\)"):
        moe()(images(), task="cls", token_mask=torch.ones(2, 3, dtype=torch.bool))
