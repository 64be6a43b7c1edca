import pytest
import torch

from visionlab.backbones import (
    BACKBONES,
    create_backbone,
    feature_map,
    grid_size,
    list_backbones,
    patch_size,
    register_backbone,
)
from visionlab.backbones.protocol import num_prefix_tokens
from visionlab.backbones.timm_names import timm_names


def test_static_names_are_timms_own():
    import timm

    architectures = {n.partition(".")[0] for n in timm.list_models()}
    assert architectures <= timm_names()


def test_wildcards():
    names = list_backbones("vit_small*")
    assert "vit_small_patch16_224" in names
    assert all(n.startswith("vit_small") for n in names)
    assert "vit" in list_backbones()


def test_misspelt_name():
    with pytest.raises(ValueError, match="Did you mean 'vit_base_patch16_224'"):
        create_backbone("vit_bse_patch16_224")


def test_own_backbone_by_decorator():
    @register_backbone("test_identity")
    class Identity(torch.nn.Identity): ...

    assert isinstance(create_backbone("test_identity"), Identity)
    BACKBONES._entries.pop("test_identity")


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


def test_width_and_heads_must_fit():
    with pytest.raises(ValueError, match="not a multiple of num_heads"):
        create_backbone("vit", embed_dim=10, num_heads=3)
