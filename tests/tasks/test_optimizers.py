import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from visionlab.backbones import create_backbone
from visionlab.masking import MaskedAutoencoder
from visionlab.tasks.optimizers import SGD, Adam, AdamW, Lars, Recipe, names_of, no_decay_names


def vit():
    return create_backbone("vit", img_size=8, patch_size=4, embed_dim=12, depth=1, reg_tokens=2)


def build(recipe: Recipe, model=None, **sizes):
    sizes = {"images_per_step": 256, "steps": 100, "steps_per_epoch": 10} | sizes
    return recipe.build(model or nn.Linear(2, 2), **sizes)


def rates(schedule, optimizer, steps):
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_rate_is_scaled_by_the_images_of_a_step():
    optimizer, _ = build(AdamW(1.5e-4, lr_per_images=256), images_per_step=4096)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(2.4e-3)
    assert build(AdamW(1.5e-4), images_per_step=4096)[0].param_groups[0]["lr"] == 1.5e-4


def test_warm_up_then_half_a_cosine_to_the_floor():
    optimizer, schedule = build(AdamW(1.0, warmup_epochs=2, min_lr=0.1))
    found = rates(schedule, optimizer, 101)
    assert all(b > a for a, b in pairwise(found[:21]))
    assert found[20] == pytest.approx(1.0)
    assert found[60] == pytest.approx(0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi / 2)))
    assert found[100] == pytest.approx(0.1)


def test_constant_schedule():
    optimizer, schedule = build(Adam(0.5))
    assert set(rates(schedule, optimizer, 30)) == {0.5}


def test_a_line_down_to_the_floor():
    optimizer, schedule = build(AdamW(1.0, warmup_epochs=2, min_lr=0.1, schedule="linear"))
    found = rates(schedule, optimizer, 101)
    assert found[20] == pytest.approx(1.0)
    assert found[60] == pytest.approx(0.55)
    assert found[100] == pytest.approx(0.1)


def test_the_steps_of_the_detection_recipe():
    """A tenth from step 163,889 of 184,375 on, a hundredth from 177,546 on (arXiv 2203.16527)."""
    _, schedule = build(AdamW(1.0, schedule="step"), steps=184_375)
    factor = schedule.lr_lambdas[0]
    assert [round(factor(s), 6) for s in (163_888, 163_889, 177_546, 177_547)] == [
        1,
        0.1,
        0.1,
        0.01,
    ]


def test_tokens_positions_biases_and_norms_are_not_decayed():
    model = MaskedAutoencoder(vit(), decoder="light")
    optimizer, _ = build(AdamW(weight_decay=0.05), model)
    groups = names_of(optimizer.param_groups, model)
    decayed = {
        n for g, names in zip(optimizer.param_groups, groups) for n in names if g["weight_decay"]
    }
    spared = set().union(*groups) - decayed
    assert "backbone.blocks.0.mlp.fc1.weight" in decayed
    assert {"backbone.cls_token", "backbone.reg_token", "backbone.norm.weight"} <= spared
    assert not any(n.endswith(("bias", "token")) for n in decayed)
    assert set().union(*groups) == {n for n, p in model.named_parameters() if p.requires_grad}
    assert any("mask_token" in n for n in spared)
    assert "backbone.cls_token" in no_decay_names(model)


@pytest.mark.parametrize("recipe", [AdamW(0.1), Adam(0.1), SGD(0.1), Lars(0.1)])
def test_every_recipe_steps(recipe):
    model = nn.Linear(2, 2)
    before = model.weight.clone()
    optimizer, _ = build(recipe, model)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    assert not torch.equal(before, model.weight)


@pytest.mark.parametrize(("arguments", "message"), [
    ({"lr": 0.0}, "expected a positive number"),
    ({"lr": float("nan")}, "lr is nan; expected a positive number"),
    ({"lr": 1.0, "layer_decay": 1.5}, r"expected a number in \(0, 1\]"),
])  # fmt: skip
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        AdamW(**arguments)
