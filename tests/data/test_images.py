"""The data module: normalisation, its loaders, its arguments."""

import numpy as np
import pytest
import torch

from visionlab.data import ArrayImages, ImageData
from visionlab.data.images import normalise


def arrays(n=10):
    return ArrayImages(np.arange(n, dtype=np.uint8)[:, None, None] + np.zeros((1, 2, 2), np.uint8),
                       np.arange(n))  # fmt: skip


def test_data_module_normalises_on_the_device():
    data = ImageData({"train": arrays()}, batch_size=2, mean=[0.5], std=[0.25])
    batch = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    assert batch["image"].dtype == torch.float32
    index = batch["index"].float()
    assert torch.allclose(batch["image"][:, 0, 0, 0], (index / 255 - 0.5) / 0.25)


def test_data_module_checks_its_arguments():
    with pytest.raises(ValueError, match="expected some of 'train'"):
        ImageData({"trian": arrays()})
    with pytest.raises(ValueError, match="one positive std"):
        ImageData({"train": arrays()}, mean=[0.5], std=[0.0])
    data = ImageData({"train": arrays()}, batch_size=2)
    with pytest.raises(ValueError, match=r"1 channels, data\.mean has 3"):
        data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    with pytest.raises(ValueError, match="no dataset 'test' among"):
        data.test_dataloader()


def test_training_is_shuffled_and_whole_the_rest_in_order():
    data = ImageData({"train": arrays(), "test": arrays()}, batch_size=4, mean=[0.5], std=[0.5])
    seen = [int(i) for batch in data.train_dataloader() for i in batch["index"]]
    assert len(seen) == len(set(seen)) == 8  # the incomplete batch of 2 is left out
    assert seen != sorted(seen)
    assert [int(i) for b in data.test_dataloader() for i in b["index"]] == list(range(10))
    assert data.val_dataloader() == []


def test_floats_are_taken_as_0_to_1():
    images = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    bytes_ = (images * 255).round().to(torch.uint8)
    a, b = (normalise(x, (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)) for x in (bytes_ / 255, bytes_))
    torch.testing.assert_close(a, b)
    assert torch.equal(normalise(images, (0.0,) * 3, (1.0,) * 3), images)
