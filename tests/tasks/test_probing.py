"""Linear probing trains the linear layer, and nothing else."""

import pytest
import torch

from visionlab.backbones import create_backbone
from visionlab.heads import ImageClassifier
from visionlab.tasks.optimizers import Lars
from visionlab.tasks.probing import LinearProbing


def classifier(**options):
    torch.manual_seed(0)
    backbone = create_backbone("vit", img_size=8, patch_size=4, embed_dim=6, depth=1)
    return ImageClassifier(backbone, 3, **options)


def test_gradients_reach_the_head_alone():
    task = LinearProbing(classifier(freeze_backbone=True, norm="batch"))
    assert isinstance(task.recipe, Lars)
    assert task.model_to_train() is task.model.head
    batch = {"image": torch.randn(4, 3, 8, 8), "label": torch.tensor([0, 1, 2, 0])}
    task.loss(batch, 0).backward()
    moved = {n for n, p in task.model.named_parameters() if p.grad is not None}
    assert moved == {"head.weight", "head.bias"}


def test_labels_outside_the_classes_are_said():
    task = LinearProbing(classifier(freeze_backbone=True, norm="batch"))
    batch = {"image": torch.randn(2, 3, 8, 8), "label": torch.tensor([0, 3])}
    with pytest.raises(ValueError, match="3"):
        task.loss(batch, 0)


def test_a_backbone_that_trains_is_refused():
    with pytest.raises(ValueError, match=r"needs task\.model\.freeze_backbone=true"):
        LinearProbing(classifier())
