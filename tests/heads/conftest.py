"""Small features and a batch with a full, an empty and a crowded picture."""

import pytest
import torch

from visionlab.heads.features import Features


def make_features(seed: int = 0, pictures: int = 3, dim: int = 32, grid: int = 4) -> Features:
    """Random features of a ViT with patch size 8 and one class token."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(pictures, 1 + grid * grid, dim, generator=generator)
    side = 8 * grid
    sizes = torch.full((pictures, 2), side)
    return Features(tokens.requires_grad_(), (grid, grid), (side, side), sizes)


@pytest.fixture
def features() -> Features:
    return make_features()


@pytest.fixture
def boxes_batch() -> dict:
    """Two objects; none; one object and one crowd box and one box without area."""
    boxes = [
        torch.tensor([[2.0, 3.0, 14.0, 15.0], [16.0, 16.0, 31.0, 30.0]]),
        torch.zeros(0, 4),
        torch.tensor([[4.0, 4.0, 20.0, 20.0], [0.0, 0.0, 32.0, 32.0], [5.0, 5.0, 5.0, 9.0]]),
    ]
    labels = [torch.tensor([1, 0]), torch.zeros(0, dtype=torch.int64), torch.tensor([2, 2, 0])]
    crowd = [torch.zeros(2), torch.zeros(0), torch.tensor([0.0, 1.0, 0.0])]
    masks = [torch.zeros(len(b), 32, 32, dtype=torch.uint8) for b in boxes]
    for mask, box in zip(masks, boxes):
        for m, (x1, y1, x2, y2) in zip(mask, box.int().tolist()):
            m[y1:y2, x1:x2] = 1
    return {
        "image": torch.zeros(3, 3, 32, 32),
        "boxes": boxes,
        "labels": labels,
        "crowd": [c.bool() for c in crowd],
        "masks": masks,
    }
