import pytest
import torch

from visionlab.backbones import create_backbone
from visionlab.heads import ImageClassifier
from visionlab.tasks.optimizers import AdamW

IMAGES = torch.randn(2, 3, 8, 8)


def vit(**more):
    return create_backbone("vit", img_size=8, patch_size=4, embed_dim=6, depth=3, **more)


@pytest.mark.parametrize("pool", ["mean", "token"])
@pytest.mark.parametrize("norm", ["layer", "batch", "none"])
def test_logits_of_pooled_features(pool, norm):
    model = ImageClassifier(vit(), 4, pool=pool, norm=norm).eval()
    tokens = model.backbone.forward_features(IMAGES)
    pooled = tokens[:, 0] if pool == "token" else tokens[:, 1:].mean(1)
    assert torch.equal(model.features(IMAGES), pooled)
    assert torch.equal(model(IMAGES), model.head(model.norm(pooled)))


def test_frozen_backbone_gets_no_gradient_and_stays_in_eval_mode():
    model = ImageClassifier(vit(drop_path_rate=0.5), 4, freeze_backbone=True).train()
    model(IMAGES).sum().backward()
    assert model.head.weight.grad is not None
    assert all(p.grad is None for p in model.backbone.parameters())
    assert not model.backbone.training


def test_convolutional_backbone():
    model = ImageClassifier(create_backbone("resnet18"), 4, norm="none")
    assert model(torch.randn(2, 3, 64, 64)).shape == (2, 4)


def test_layer_decay_falls_with_depth():
    model = ImageClassifier(vit(), 4)
    optimizer, _ = AdamW(1.0, layer_decay=0.5).build(
        model, images_per_step=1, steps=10, steps_per_epoch=1
    )
    lr = {id(p): g["lr_scale"] for g in optimizer.param_groups for p in g["params"]}
    assert lr[id(model.head.weight)] == 1.0
    assert lr[id(model.backbone.blocks[2].mlp.fc1.weight)] == 0.5
    assert lr[id(model.backbone.blocks[0].mlp.fc1.weight)] == 0.125
    assert lr[id(model.backbone.patch_embed.proj.weight)] == 0.0625


def test_wrong_arguments():
    with pytest.raises(ValueError, match="at least 2"):
        ImageClassifier(vit(), 1)
    with pytest.raises(ValueError, match="class token"):
        ImageClassifier(vit(class_token=False), 3, pool="token")
