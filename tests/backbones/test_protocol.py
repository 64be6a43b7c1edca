"""What heads and masks ask of a backbone, asked of timm's and ours."""

import re

import pytest
import torch

from visionlab.backbones import (
    create_backbone,
    feature_map,
    grid_size,
    patch_size,
)
from visionlab.backbones.protocol import layer_groups, num_prefix_tokens


@pytest.mark.parametrize(
    ("name", "arguments", "prefix"),
    [
        ("vit_tiny_patch16_224", {"img_size": (32, 48), "depth": 1}, 1),
        ("vit_tiny_patch16_224", {"img_size": (32, 48), "depth": 1, "reg_tokens": 4}, 5),
        ("vit", {"img_size": (32, 48), "depth": 1, "class_token": False}, 0),
        ("deit_tiny_patch16_224", {"img_size": (32, 48), "depth": 1}, 1),
    ],
)
def test_protocol(name, arguments, prefix):
    model = create_backbone(name, **arguments)
    images = torch.randn(2, 3, 32, 48)
    assert patch_size(model) == (16, 16)
    assert grid_size(model, (32, 48)) == (2, 3)
    assert num_prefix_tokens(model) == prefix
    tokens = model.forward_features(images)
    assert tokens.shape == (2, prefix + 6, model.embed_dim)
    assert feature_map(model, images).shape == (2, model.embed_dim, 2, 3)
    assert torch.equal(feature_map(model, images)[0, :, 1, 2], tokens[0, -1])
    (middle,) = model.forward_intermediates(images, indices=[0], intermediates_only=True)
    assert middle.shape == (2, model.embed_dim, 2, 3)


def test_convolutional_backbone_gives_a_map():
    model = create_backbone("resnet18")
    assert feature_map(model, torch.randn(1, 3, 64, 64)).shape == (1, 512, 2, 2)
    with pytest.raises(TypeError, match="no patch embedding"):
        patch_size(model)


def test_image_that_the_patch_does_not_divide():
    model = create_backbone("vit", img_size=8, patch_size=4, embed_dim=6, depth=1)
    with pytest.raises(ValueError, match=r"9x13 pixels.*resize it to 8x12"):
        grid_size(model, (9, 13))


def test_layer_groups_cover_a_vit_and_nothing_else():
    """Depths rise with the network; norm and head belong to no group, so train at the full rate."""
    model = torch.nn.Module()
    model.backbone = create_backbone("vit", img_size=8, patch_size=4, embed_dim=6, depth=2)
    model.head = torch.nn.Linear(6, 2)
    groups = layer_groups("backbone.")
    found = {}
    for name, _ in model.named_parameters():
        block = re.match(groups["blocks"][0][0], name)
        if re.match(groups["stem"], name):
            found[name] = "stem"
        elif block:
            found[name] = int(block[1])
    assert {n for n, depth in found.items() if depth == "stem"} == {
        "backbone.cls_token", "backbone.pos_embed",
        "backbone.patch_embed.proj.weight", "backbone.patch_embed.proj.bias",
    }  # fmt: skip
    assert {depth for depth in found.values() if depth != "stem"} == {0, 1}
    assert {n for n, _ in model.named_parameters()} - set(found) == {
        "backbone.norm.weight", "backbone.norm.bias", "head.weight", "head.bias",
    }  # fmt: skip
    assert re.match(groups["blocks"][0][0], "backbone.vit.blocks.11.norm1.weight")[1] == "11"
