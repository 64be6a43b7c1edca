"""Visible patches through timm's ViTs: equal to timm's own forward, gathered before or after."""

import pytest
import timm
import torch
from timm.layers import PatchEmbed
from torch import nn

from visionlab.masking import create_mask
from visionlab.masking.targets import patchify
from visionlab.masking.vit import (
    check_vit,
    drop_classifier,
    embeds_linearly,
    encode_visible,
    image_grid,
    patch_size,
)

TINY = {"embed_dim": 32, "depth": 2, "num_heads": 2}
# class token, registers, none, both; positions absolute, rotary, rotary per depth, none in prefix
MODELS = [
    ("vit_tiny_patch16_224", {"img_size": (48, 80), **TINY}, (48, 80)),
    ("vit_tiny_patch16_224", {"img_size": 32, "dynamic_img_size": True, **TINY}, (48, 80)),
    ("vit_small_patch14_reg4_dinov2", {"img_size": (42, 56), **TINY}, (42, 56)),
    ("vit_medium_patch16_gap_240", {"img_size": 64, **TINY}, (64, 64)),
    ("vit_base_patch16_clip_224", {"img_size": 64, **TINY}, (64, 64)),
    ("deit3_small_patch16_224", {"img_size": 64, **TINY}, (64, 64)),
    ("eva02_tiny_patch14_224", {"img_size": (42, 56), **TINY}, (42, 56)),
    ("vit_small_patch16_rope_mixed_224", {"img_size": 64, **TINY}, (64, 64)),
    ("vit_small_patch16_dinov3", {"dynamic_img_size": True, **TINY}, (48, 64)),
    ("vit_tiny_patch16_224", {"img_size": 64, "pos_drop_rate": 0.1, **TINY}, (64, 64)),
]


def build(name, options):
    torch.manual_seed(0)
    return timm.create_model(name, num_classes=0, global_pool="", **options).eval()


@pytest.mark.parametrize(("name", "options", "size"), MODELS)
def test_all_patches_give_timms_own_features(name, options, size):
    vit = build(name, options)
    images = torch.randn(2, 3, *size)
    grid = image_grid(vit, images)
    ids = torch.arange(grid[0] * grid[1]).expand(2, -1)
    with torch.no_grad():
        ours = encode_visible(vit, images, patchify(images, patch_size(vit)), ids, grid)
        torch.testing.assert_close(ours, vit.forward_features(images), atol=1e-4, rtol=1e-4)


class Stem(PatchEmbed):
    """The same embedding under another type: takes the slow way."""


@pytest.mark.parametrize(("name", "options", "size"), MODELS)
def test_gathering_before_the_embedding_equals_gathering_after_it(name, options, size):
    vit = build(name, options)
    images = torch.randn(3, 3, *size)
    grid = image_grid(vit, images)
    patches = patchify(images, patch_size(vit))
    masks = create_mask("random", grid, 0.5)(3, key=(0,))
    with torch.no_grad():
        fast = encode_visible(vit, images, patches, masks.ids_keep, grid)
        assert embeds_linearly(vit) == (not options.get("pos_drop_rate"))
        vit.patch_embed.__class__ = Stem
        assert not embeds_linearly(vit)
        slow = encode_visible(vit, images, patches, masks.ids_keep, grid)
    torch.testing.assert_close(fast, slow, atol=1e-4, rtol=1e-4)
    assert fast.shape == (3, vit.num_prefix_tokens + masks.keep, 32)


def test_hidden_pixels_do_not_reach_the_encoder():
    vit = build(*MODELS[0][:2])
    images = torch.randn(2, 3, 48, 80)
    masks = create_mask("random", (3, 5), 0.6)(2, key=(0,))
    hidden = masks.mask.view(2, 1, 3, 5).repeat_interleave(16, 2).repeat_interleave(16, 3)
    changed = torch.where(hidden, 99.0, images)
    with torch.no_grad():
        a, b = (encode_visible(vit, x, patchify(x, (16, 16)), masks.ids_keep, (3, 5))
                for x in (images, changed))  # fmt: skip
    assert torch.equal(a, b)


def test_convolutional_stem_sees_the_whole_image():
    vit = build("vit_small_r26_s32_224", {"img_size": 96, "depth": 1})
    images = torch.randn(1, 3, 96, 96)
    grid = image_grid(vit, images)
    assert patch_size(vit) == (32, 32)
    assert not embeds_linearly(vit)
    ids = torch.tensor([[0, 4, 7]])
    with torch.no_grad():
        tokens = encode_visible(vit, images, patchify(images, (32, 32)), ids, grid)
    assert tokens.shape == (1, 4, vit.embed_dim)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vit_small_patch16_rope_mixed_224"])
def test_gradient_checkpointing_changes_nothing(name):
    vit = build(name, {"img_size": 32, **TINY}).train()
    images = torch.randn(2, 3, 32, 32)
    patches, ids = patchify(images, (16, 16)), torch.tensor([[0, 3], [1, 2]])
    grads = []
    for enable in (False, True):
        vit.set_grad_checkpointing(enable)
        vit.zero_grad()
        encode_visible(vit, images, patches, ids, (2, 2)).square().sum().backward()
        grads.append(vit.blocks[0].attn.proj.weight.grad.clone())
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("deit_tiny_distilled_patch16_224", {"global_pool": "token"}),
        ("vit_tiny_patch16_224", {"global_pool": "token"}),
        ("vit_base_patch16_siglip_224", {"global_pool": "map"}),
    ],
)
def test_classification_heads_are_dropped(name, options):
    vit = timm.create_model(name, num_classes=5, img_size=32, **TINY, **options)
    assert drop_classifier(vit)
    names = [n for n, _ in vit.named_parameters()]
    assert not [n for n in names if n.startswith(("head", "attn_pool"))]
    assert not drop_classifier(vit)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("beit_base_patch16_224", {"img_size": 32, **TINY}),
        ("vit_relpos_small_patch16_224", {"img_size": 32, **TINY}),
        ("resnet10t", {}),
    ],
)
def test_other_networks_are_refused(name, options):
    with pytest.raises(TypeError, match="needs a timm VisionTransformer or Eva model"):
        check_vit(timm.create_model(name, num_classes=0, **options))
    with pytest.raises(TypeError, match="got Linear"):
        check_vit(nn.Linear(2, 2))


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "eva02_tiny_patch14_224"])
def test_patch_dropout_is_refused(name):
    vit = timm.create_model(name, num_classes=0, patch_drop_rate=0.3, **TINY)
    with pytest.raises(ValueError, match=r"drops patches itself \(patch_drop_rate=0.3\)"):
        check_vit(vit)


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (torch.zeros(2, 3, 40, 80), ValueError, "40x80 pixels is not divisible into 16x16 patches; "
         "resize it to 32x80"),
        (torch.zeros(2, 3, 64, 80), ValueError, r"takes images of 48x80, got 64x80; create it with "
         r"img_size=\(64, 80\), or with dynamic_img_size=True"),
        (torch.zeros(2, 1, 48, 80), ValueError, r"shape \(B, 3, H, W\), got \(2, 1, 48, 80\)"),
        (torch.zeros(3, 48, 80), ValueError, r"shape \(B, 3, H, W\), got \(3, 48, 80\)"),
        (torch.zeros(2, 3, 48, 80, dtype=torch.uint8), TypeError, "normalised float images, got "
         "torch.uint8"),
    ],
)  # fmt: skip
def test_wrong_images(images, error, message):
    with pytest.raises(error, match=message):
        image_grid(build(*MODELS[0][:2]), images)
