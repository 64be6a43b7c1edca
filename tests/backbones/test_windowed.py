"""Windowed attention against full attention and against an explicit mask of who sees whom."""

import copy
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint as recompute

from visionlab.backbones import create_backbone
from visionlab.backbones.windowed import join_windows, split_windows, windowed


def vit(seed: int = 0, *, dynamic: bool = True, **options):
    torch.manual_seed(seed)
    sizes = {"img_size": (24, 20), "patch_size": 4, "embed_dim": 24, "depth": 4, "num_heads": 2}
    model = create_backbone("vit", **{**sizes, **options}, dynamic_img_size=dynamic)
    return model.double().eval()


PREFIXES = {"class token": {}, "registers": {"reg_tokens": 2}, "none": {"class_token": False}}


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("window", [6, 7, 40])
def test_a_window_over_the_whole_image_is_full_attention(prefix, window):
    full = vit(**PREFIXES[prefix])
    windows = windowed(copy.deepcopy(full), window, global_blocks=[])
    images = torch.randn(2, 3, 24, 20, dtype=torch.float64)
    expected = full.forward_features(images)
    assert torch.allclose(windows.forward_features(images), expected, atol=1e-12)


def seen(grid: tuple[int, int], side: int, prefix: int) -> Tensor:
    """(N, N) bool, the slow twin: row attends to column."""
    rows, columns = torch.meshgrid(*(torch.arange(n) // side for n in grid), indexing="ij")
    number = (rows * 1000 + columns).flatten()
    mask = torch.ones(prefix + len(number), prefix + len(number), dtype=torch.bool)
    mask[prefix:, prefix:] = number[:, None] == number[None, :]
    return mask


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("side", [1, 2, 3, 4])
def test_windows_are_full_attention_under_a_mask(prefix, side):
    full = vit(**PREFIXES[prefix])
    windows = windowed(copy.deepcopy(full), side, global_blocks=[])
    images = torch.randn(2, 3, 24, 20, dtype=torch.float64)
    mask = seen((6, 5), side, full.num_prefix_tokens)
    expected = full.forward_features(images, attn_mask=mask)
    assert torch.allclose(windows.forward_features(images), expected, atol=1e-12)


def test_padding_of_a_picture_is_not_attended_to():
    full = vit()
    windows = windowed(copy.deepcopy(full), 3, global_blocks=[])
    x = torch.randn(2, 31, 24, dtype=torch.float64)
    keys = torch.ones(2, 1, 1, 31, dtype=torch.bool)
    keys[1, ..., 16:] = False  # the lower rows: two windows hold nothing else
    windows.patch_embed(torch.zeros(2, 3, 24, 20, dtype=torch.float64))  # the grid is noted
    found = windows.blocks[0].attn(x, attn_mask=keys)
    mask = seen((6, 5), 3, 1) & keys
    expected = full.blocks[0].attn(x, attn_mask=mask)
    assert torch.allclose(found[0], expected[0], atol=1e-12)
    assert torch.allclose(found[1, :16], expected[1, :16], atol=1e-12)
    assert torch.isfinite(found).all()


def test_some_blocks_stay_global_and_names_stay_timms():
    full = vit(depth=12)
    windows = windowed(copy.deepcopy(full), 2)
    kinds = [type(b.attn).__name__ for b in windows.blocks]
    assert [i for i, k in enumerate(kinds) if k == "Attention"] == [2, 5, 8, 11]
    assert list(windows.state_dict()) == list(full.state_dict())
    small = windowed(vit(depth=2), 2)
    assert type(small.blocks[1].attn).__name__ == "Attention"


def test_any_image_size_and_every_parameter_trains():
    model = windowed(vit(), 2).train()
    for size in ((24, 20), (8, 32), (16, 16)):
        out = model.forward_features(torch.randn(2, 3, *size, dtype=torch.float64))
        assert out.shape == (2, 1 + size[0] * size[1] // 16, 24)
        out.square().sum().backward()
    # the last norm's scale times unit vectors: only pos_embed and the like could stay without
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_a_copy_notes_its_own_grid():
    model = windowed(vit(), 2, global_blocks=[])
    other = copy.deepcopy(model)
    images = torch.randn(1, 3, 8, 8, dtype=torch.float64)
    model.forward_features(torch.randn(1, 3, 24, 20, dtype=torch.float64))
    expected = model.forward_features(images)
    model.patch_embed(torch.zeros(1, 3, 24, 20, dtype=torch.float64))
    assert torch.equal(other.forward_features(images), expected)


@pytest.mark.parametrize("reentrant", [False, True])
def test_recomputed_activations_have_the_grid_of_their_own_images(reentrant):
    model = windowed(vit(), 2, global_blocks=[]).train()
    batches = [torch.randn(2, 3, *size, dtype=torch.float64) for size in ((24, 20), (8, 32))]

    def gradients(recomputed: bool) -> list[Tensor]:
        if recomputed:
            for block in model.blocks:
                block.forward = partial(recompute, block.forward, use_reentrant=reentrant)
        model.zero_grad()
        sum(model.forward_features(b).square().sum() for b in batches).backward()
        return [p.grad.clone() for p in model.parameters()]

    plain = gradients(False)
    with torch.no_grad():  # evaluations leave no trace
        model.forward_features(batches[0].transpose(2, 3))
    assert all(torch.allclose(a, b, atol=1e-9) for a, b in zip(plain, gradients(True)))
    out = model.forward_features(batches[0])
    model.forward_features(batches[0].transpose(2, 3))
    with pytest.raises(
        ValueError, match=r"recomputed for images of the grids \[\(5, 6\), \(6, 5\)\]"
    ):
        out.sum().backward()


def test_an_attention_without_a_gate():
    """As older versions of timm have it."""
    plain = vit()
    for block in plain.blocks:
        del block.attn.gate
    images = torch.randn(1, 3, 24, 20, dtype=torch.float64)
    found = windowed(plain, 2, global_blocks=[]).forward_features(images)
    assert torch.equal(found, windowed(vit(), 2, global_blocks=[]).forward_features(images))


def test_moe_layers_go_into_a_windowed_vit():
    moe = create_backbone(
        "moe_vit", backbone=windowed(vit(), 2), tasks=["a"], num_experts=2, top_k=2, upcycle=True
    )
    images = torch.randn(2, 3, 24, 20, dtype=torch.float64)
    expected = windowed(vit(), 2).forward_features(images)
    assert torch.allclose(moe.forward_features(images, "a"), expected, atol=1e-9)


@pytest.mark.parametrize("grid", [(1, 1), (6, 5), (4, 9)])
@pytest.mark.parametrize("side", [1, 2, 4, 7])
def test_joining_undoes_splitting(grid, side):
    tokens = torch.randn(2, 3, grid[0] * grid[1], 5)
    windows = split_windows(tokens, grid, side)
    assert windows.shape[3] == side**2
    assert torch.equal(join_windows(windows, grid, side), tokens)
    first = tokens.unflatten(2, grid)[:, :, :side, :side]
    height, width = first.shape[2:4]
    found = windows[:, 0].unflatten(2, (side, side))
    assert torch.equal(found[:, :, :height, :width], first)


def test_mistakes_are_named():
    with pytest.raises(TypeError, match="windows need a timm VisionTransformer, got Linear"):
        windowed(torch.nn.Linear(1, 1))
    with pytest.raises(ValueError, match="window is 0 patches"):
        windowed(vit(), 0)
    with pytest.raises(ValueError, match=r"names the blocks \[4, 9\], the ViT has 0..3"):
        windowed(vit(), 2, global_blocks=[1, 4, 9])
    model = windowed(vit(), 2, global_blocks=[])
    with pytest.raises(TypeError, match="block 0 has WindowedAttention where windows need"):
        windowed(model, 2, global_blocks=[])
    with pytest.raises(ValueError, match="5 tokens came to windowed attention, a whole image has"):
        model.blocks[0].attn(torch.randn(1, 5, 24, dtype=torch.float64))
    model.patch_embed(torch.zeros(1, 3, 8, 8, dtype=torch.float64))
    with pytest.raises(ValueError, match="no causal ones"):
        model.blocks[0].attn(torch.randn(1, 5, 24, dtype=torch.float64), is_causal=True)


def test_masked_pretraining_is_refused():
    from visionlab.masking import MaskedAutoencoder

    with pytest.raises(
        ValueError, match=r"the blocks \[0, 1, 2\] of the backbone attend within win"
    ):
        MaskedAutoencoder(windowed(vit().float(), 2, global_blocks=[3]), "random", decoder="light")
