import pytest
import torch
from torch.nn import functional as F

from visionlab.heads.segmentation import LinearSegmentationHead, UPerSegmentationHead

HEADS = {
    "linear": lambda: LinearSegmentationHead(32, 4),
    "cells": lambda: LinearSegmentationHead(32, 4, cells=4),
    "uper": lambda: UPerSegmentationHead(32, 4, channels=16),
}


@pytest.mark.parametrize("name", HEADS)
def test_logits_at_image_size_and_loss_without_ignored_pixels(features, name):
    head = HEADS[name]()
    mask = torch.randint(0, 4, (3, 32, 32), dtype=torch.uint8)
    mask[0, :10] = 255
    outputs = head(features)
    loss = head.loss(outputs, {"mask": mask})
    loss.mean.backward()
    assert outputs.shape == (3, 4, 32, 32)
    assert loss.count == 3 * 32 * 32 - 10 * 32
    valid = mask != 255
    expected = F.cross_entropy(outputs.movedim(1, -1)[valid], mask[valid].long())
    assert torch.allclose(loss.mean, expected, rtol=1e-5)
    assert all(p.grad is not None for p in head.parameters())
    assert head.predict(outputs).shape == (3, 32, 32)


def test_a_batch_of_ignored_pixels_has_no_loss(features):
    head = HEADS["linear"]()
    loss = head.loss(head(features), {"mask": torch.full((3, 32, 32), 255, dtype=torch.uint8)})
    assert loss.mean == 0
    loss.mean.backward()


def test_cells_predict_inside_a_patch(features):
    """With as many cells as pixels nothing is interpolated."""
    head = LinearSegmentationHead(32, 2, cells=8)
    expected = F.pixel_shuffle(head.classify(features.map), 8)
    assert torch.equal(head(features), expected)


def test_wrong_sizes_are_named(features):
    head = HEADS["linear"]()
    with pytest.raises(ValueError, match=r"masks are \(16, 16\) px, the images \(32, 32\) px"):
        head.loss(head(features), {"mask": torch.zeros(3, 16, 16)})
    with pytest.raises(ValueError, match="cells is at least 1"):
        LinearSegmentationHead(32, 2, cells=0)
    with pytest.raises(ValueError, match=r"hold up to 255 classes .*got num_classes=256"):
        LinearSegmentationHead(32, 256)
