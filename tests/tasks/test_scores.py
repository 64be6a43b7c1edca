"""The figures of a trained task: which models have any, and under which precision."""

import numpy as np
import pytest
import torch
from torch import nn

from visionlab.backbones import create_backbone
from visionlab.data import ArrayImages, ImageData
from visionlab.heads import ImageClassifier
from visionlab.tasks.scores import check_scorable, score, uses_bf16


@pytest.fixture
def data():
    images = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 3), dtype=np.uint8)
    return ImageData({"val": ArrayImages(images, np.arange(10) % 2)}, batch_size=4)


@pytest.fixture
def model():
    torch.manual_seed(0)
    backbone = create_backbone("vit", img_size=8, patch_size=4, embed_dim=6, depth=1)
    return ImageClassifier(backbone, 2)


def test_a_classifier_is_scored_over_all_samples(model, data):
    model.train()
    ((kind, figures),) = score(model, data, "val").values()
    images = torch.cat([data.normalise(b["image"]) for b in data.loader("val")])
    labels = torch.cat([b["label"] for b in data.loader("val")])
    with torch.no_grad():
        right = (model.eval()(images).argmax(1) == labels).float().mean()
    assert kind == "classification"
    assert next(iter(figures.values())) == pytest.approx(100 * float(right))


def test_its_mode_is_left_as_it_was(model, data):
    model.train()
    model.backbone.eval()
    modes = [m.training for m in model.modules()]
    score(model, data, "val")
    assert [m.training for m in model.modules()] == modes


def test_what_has_no_scores_is_said(model, data):
    check_scorable(model, data)
    with pytest.raises(ValueError, match=r"image classifier on images .* got Linear on ImageData"):
        check_scorable(nn.Linear(2, 2), data)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"trainer": {"precision": "bf16-mixed"}}, True),
        ({"trainer": {"precision": "16-mixed"}}, False),
        ({"trainer": {"precision": 32}}, False),
        ({"trainer": None}, False),
        (None, False),
    ],
)
def test_bf16_is_read_from_the_config(config, expected):
    assert uses_bf16(config) is expected
