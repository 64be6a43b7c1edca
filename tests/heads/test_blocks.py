"""Heads that read several blocks of the backbone, dense or MoE."""

import pytest
import torch

from visionlab.backbones import create_backbone
from visionlab.heads import MultiTaskModel, UPerSegmentationHead
from visionlab.heads.pyramid import SimpleFeaturePyramid


def model(moe: bool, **options) -> MultiTaskModel:
    torch.manual_seed(0)
    vit = create_backbone("vit", img_size=32, patch_size=8, embed_dim=32, depth=4, num_heads=2)
    if moe:
        vit = create_backbone("moe_vit", backbone=vit, tasks=["a"], num_experts=2, top_k=2)
    return MultiTaskModel(vit, {"a": UPerSegmentationHead(32, 5, channels=16, **options)})


@pytest.mark.parametrize("moe", [False, True])
def test_levels_come_from_the_blocks(moe):
    net = model(moe, blocks=[0, 1, 2, 3]).eval()
    images = torch.randn(2, 3, 32, 32)
    features = net.features(images, task="a")
    options = {"task": "a"} if moe else {}
    _, maps = net.backbone.forward_intermediates(images, indices=[0, 1, 2, 3], **options)
    assert all(torch.equal(a, b) for a, b in zip(features.block_maps, maps))
    tokens = net.backbone.forward_features(images, **options)
    assert torch.equal(features.tokens, tokens)
    assert net(images, task="a").shape == (2, 5, 32, 32)
    assert not torch.equal(net(images, task="a"), model(moe).eval()(images, task="a"))


def test_gradients_reach_each_level_through_its_block_alone():
    net = model(False, blocks=[0, 1, 2, 3])
    features = net.features(torch.randn(1, 3, 32, 32), task="a")
    levels = net.head("a").pyramid(features.block_maps)
    grads = torch.autograd.grad(levels["1"].sum(), features.block_maps, allow_unused=True)
    assert [g is not None for g in grads] == [False, True, False, False]


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="3 blocks for 4 scales"):
        UPerSegmentationHead(32, 5, blocks=[0, 1, 2])
    with pytest.raises(ValueError, match="1 maps for a pyramid of 2 levels"):
        SimpleFeaturePyramid(32, 16, scales=[1, 0.5])([torch.zeros(1, 32, 4, 4)])
