"""Decoders against the published formulation: un-shuffle, all tokens, head on all, then select."""

import pytest
import torch
import torch.nn.functional as F

from visionlab.masking import DECODERS, create_mask
from visionlab.masking.decoders import (
    CrossAttentionDecoder,
    LightDecoder,
    StandardDecoder,
    as_decoder_plan,
)
from visionlab.masking.positions import sincos_positions

GRID = (4, 6)


def tokens_and_masks(prefix):
    masks = create_mask("random", GRID, 0.75)(3, key=(0,))
    return torch.randn(3, prefix + masks.keep, 24), masks


@pytest.mark.parametrize("prefix", [0, 1, 5])
def test_self_attention_equals_the_unshuffled_way(prefix):
    decoder = StandardDecoder(depth=2, dim=32, heads=4).build(in_dim=24, out_dim=12, grid=GRID)
    tokens, masks = tokens_and_masks(prefix)
    fast = decoder(tokens, masks.ids_keep, masks.ids_mask, GRID)
    x = decoder.embed(tokens)
    places = x.new_zeros(1, prefix + 24, 32)
    places[0, prefix:] = sincos_positions(GRID, 32)
    filled = torch.cat([x[:, prefix:], decoder.mask_token.expand(3, 18, -1)], 1)
    restored = filled.gather(1, masks.ids_restore[:, :, None].expand(-1, -1, 32))
    x = torch.cat([x[:, :prefix], restored], 1) + places
    for block in decoder.blocks:
        x = block(x)
    slow = decoder.head(decoder.norm(x))[:, prefix:]
    hidden = slow[masks.mask].view(3, 18, 12)
    torch.testing.assert_close(fast, hidden, atol=1e-5, rtol=1e-4)


def test_cross_attention_against_a_plain_softmax():
    decoder = CrossAttentionDecoder(depth=1, dim=32, heads=4).build(
        in_dim=24, out_dim=12, grid=GRID
    )
    tokens, masks = tokens_and_masks(1)
    fast = decoder(tokens, masks.ids_keep, masks.ids_mask, GRID)
    table = sincos_positions(GRID, 32)
    memory = decoder.embed(tokens) + F.pad(table[masks.ids_keep], (0, 0, 1, 0))
    query = decoder.mask_token + table[masks.ids_mask]
    block = decoder.blocks[0]
    q = block.query(block.norm_query(query)).view(3, 18, 4, 8)
    k, v = block.key_value(block.norm_memory(memory)).view(3, 7, 2, 4, 8).unbind(2)
    weights = torch.einsum("bthd,bnhd->bhtn", q, k).div(8**0.5).softmax(-1)
    x = query + block.proj(torch.einsum("bhtn,bnhd->bthd", weights, v).reshape(3, 18, 32))
    x = x + block.mlp(block.norm_mlp(x))
    slow = decoder.head(decoder.norm(x))
    torch.testing.assert_close(fast, slow, atol=1e-5, rtol=1e-4)


def test_cross_attention_predicts_each_patch_on_its_own():
    decoder = CrossAttentionDecoder(depth=2, dim=32, heads=4).build(
        in_dim=24, out_dim=12, grid=GRID
    )
    tokens, masks = tokens_and_masks(1)
    every = decoder(tokens, masks.ids_keep, masks.ids_mask, GRID)
    some = decoder(tokens, masks.ids_keep, masks.ids_mask[:, 3:7], GRID)
    torch.testing.assert_close(every[:, 3:7], some)


@pytest.mark.parametrize("name", DECODERS.names())
def test_another_grid_and_every_parameter_learns(name):
    decoder = as_decoder_plan({"name": name, "depth": 1, "dim": 32, "heads": 4}).build(
        in_dim=24, out_dim=12, grid=GRID
    )
    masks = create_mask("green", (7, 5), 0.75)(2, key=(0,))
    out = decoder(torch.randn(2, 1 + masks.keep, 24), masks.ids_keep, masks.ids_mask, (7, 5))
    assert out.shape == (2, 26, 12)
    out.square().sum().backward()
    assert not [n for n, p in decoder.named_parameters() if p.grad is None]
    assert "positions" in decoder.state_dict()  # fixed, yet part of the checkpoint


def test_presets():
    assert as_decoder_plan("standard") == StandardDecoder(depth=8, dim=512, heads=16)
    assert as_decoder_plan("light") == LightDecoder(depth=4, dim=256, heads=8)
    assert as_decoder_plan({"name": "light", "depth": 2}) == LightDecoder(depth=2)
    plan = CrossAttentionDecoder()
    assert as_decoder_plan(plan) is plan


@pytest.mark.parametrize(
    ("decoder", "message"),
    [
        ("ligth", "no decoder 'ligth'. Did you mean 'light'"),
        (3, "a decoder is a name"),
        ({"depth": 2}, "a mapping with 'name'"),
    ],
)
def test_unknown_decoders(decoder, message):
    with pytest.raises((ValueError, TypeError), match=message):
        as_decoder_plan(decoder)


@pytest.mark.parametrize("sizes", [{"depth": 0}, {"dim": 30}, {"dim": 32, "heads": 5}])
def test_impossible_sizes(sizes):
    with pytest.raises(ValueError, match="width divisible by 4 and by its heads"):
        LightDecoder(**sizes)
