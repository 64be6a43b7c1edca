"""Layer-wise learning rates: stem, blocks, head; for classifiers and multi-task models."""

import pytest
import torch

from visionlab.backbones import create_backbone
from visionlab.heads import (
    ImageClassifier,
    LinearClassificationHead,
    LinearSegmentationHead,
    MultiTaskModel,
)
from visionlab.tasks.multitask import MultiTaskTraining
from visionlab.tasks.optimizers import AdamW, names_of

DEPTH, DECAY = 3, 0.65


def vit(**options):
    return create_backbone(
        "vit", img_size=16, patch_size=4, embed_dim=24, depth=DEPTH, num_heads=2, **options
    )


def multitask(backbone) -> torch.nn.Module:
    heads = {"a": LinearClassificationHead(24, 3), "b": LinearSegmentationHead(24, 3)}
    return MultiTaskTraining(MultiTaskModel(backbone, heads), weights="uncertainty")


MODELS = {
    "classifier": lambda: ImageClassifier(vit(reg_tokens=1), 3),
    "multitask": lambda: multitask(vit(reg_tokens=1)).model_to_train(),
    "windowed": lambda: multitask(
        create_backbone("windowed", backbone=vit(), window=2)
    ).model_to_train(),
    "moe": lambda: multitask(
        create_backbone("moe_vit", backbone=vit(), tasks=["a", "b"], num_experts=2, top_k=2)
    ).model_to_train(),
}


def expected(name: str) -> float:
    """Scale of a parameter, by its name (arXiv 2111.06377: stem 0, block i at i + 1, head last)."""
    last = DEPTH + 1
    if "blocks." in name:
        return DECAY ** (last - 1 - int(name.split("blocks.")[1].split(".")[0]))
    stem = ("cls_token", "reg_token", "pos_embed", "patch_embed")
    return DECAY**last if any(part in name for part in stem) else 1.0


@pytest.mark.parametrize("name", MODELS)
def test_scales_follow_depth_and_heads_learn_at_the_full_rate(name):
    model = MODELS[name]()
    recipe = AdamW(1e-3, weight_decay=0.05, layer_decay=DECAY)
    optimizer, _ = recipe.build(model, images_per_step=1, steps=10, steps_per_epoch=5)
    seen = {}
    for group, names in zip(optimizer.param_groups, names_of(optimizer.param_groups, model)):
        seen |= dict.fromkeys(names, (group["lr"] / 1e-3, group["weight_decay"]))
    parameters = dict(model.named_parameters())
    assert seen.keys() == parameters.keys()
    for parameter, (scale, decay) in seen.items():
        assert scale == pytest.approx(expected(parameter)), parameter
        spared = parameters[parameter].ndim <= 1 or "_token" in parameter or "pos_e" in parameter
        assert (decay == 0) == spared, parameter
    heads = [s for n, (s, _) in seen.items() if "head" in n or "log_variance" in n]
    assert heads
    assert set(heads) == {1.0}
