"""Sine-cosine positions and MAE's initialisation."""

import math

import pytest
import timm
import torch
from torch import nn

from visionlab.masking.positions import (
    initialize_like_mae,
    looks_trained,
    sincos_positions,
)


def test_positions_against_the_formula():
    table = sincos_positions((3, 5), 16)
    for row in range(3):
        for column in range(5):
            angles = [10000 ** (-k / 4) for k in range(4)]
            expected = [
                f(p * a) for p in (column, row) for f in (math.sin, math.cos) for a in angles
            ]
            torch.testing.assert_close(table[row * 5 + column], torch.tensor(expected))


def test_width_must_divide_by_four():
    with pytest.raises(ValueError, match="divisible by 4, got 10"):
        sincos_positions((2, 2), 10)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vit_wee_patch16_reg1_gap_256"])
def test_initialisation(name):
    vit = timm.create_model(name, img_size=(64, 96), num_classes=0, global_pool="")
    initialize_like_mae(vit)
    dim, prefix = vit.embed_dim, vit.num_prefix_tokens
    patches = vit.pos_embed[0, -24:]
    assert torch.equal(patches, sincos_positions((4, 6), dim))
    assert not vit.pos_embed[0, :-24].any()
    assert not vit.pos_embed.requires_grad
    for layer in vit.modules():
        if isinstance(layer, nn.Linear):
            bound = math.sqrt(6 / (layer.in_features + layer.out_features))
            assert 0.9 * bound < layer.weight.abs().max() <= bound
            assert not layer.bias.any()
    bound = math.sqrt(6 / (768 + dim))
    assert 0.99 * bound < vit.patch_embed.proj.weight.abs().max() <= bound
    token = vit.cls_token if vit.cls_token is not None else vit.reg_token
    assert prefix == token.shape[1]
    assert 0.01 < token.std() < 0.03
    assert not looks_trained(vit)


def test_a_trained_network_is_recognised():
    vit = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=0, depth=1)
    assert not looks_trained(vit)
    with torch.no_grad():
        vit.blocks[0].norm1.weight[3] += 1e-3
    assert looks_trained(vit)
