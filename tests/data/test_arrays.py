"""Images in arrays and .npz archives."""

import numpy as np
import pytest
import torch

from visionlab.data import ArrayImages
from visionlab.data.arrays import array_images


@pytest.mark.parametrize("shape", [(4, 5, 6), (4, 5, 6, 3), (4, 3, 5, 6), (4, 1, 5, 6)])
def test_channels_come_first(shape):
    images = ArrayImages(np.zeros(shape, np.uint8), np.zeros(4, int))
    assert images[0]["image"].shape[-2:] == (5, 6)
    assert images[0]["image"].ndim == 3


def test_transform_is_applied_per_image():
    images = ArrayImages(np.ones((2, 3, 3), np.uint8), np.arange(2), transform=lambda x: x * 2)
    assert not hasattr(images, "batch")
    assert torch.equal(images[1]["image"], torch.full((1, 3, 3), 2, dtype=torch.uint8))


def test_wrong_arrays():
    with pytest.raises(TypeError, match="float64; expected uint8"):
        ArrayImages(np.zeros((2, 3, 3)), np.zeros(2))
    with pytest.raises(ValueError, match="N > 0"):
        ArrayImages(np.zeros((0, 3, 3), np.uint8), np.zeros(0))
    with pytest.raises(ValueError, match="2 images, but labels have shape"):
        ArrayImages(np.zeros((2, 3, 3), np.uint8), np.zeros(3))
    with pytest.raises(ValueError, match="labels are float64 with values that are no whole"):
        ArrayImages(np.zeros((2, 3, 3), np.uint8), np.array([0.5, np.nan]))


def test_npz(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros((5, 3, 3), np.uint8), y=np.arange(5))
    assert len(array_images(tmp_path / "a.npz", images="x", labels="y", limit=3)) == 3
    with pytest.raises(ValueError, match=r"no array 'images'; it has \['x', 'y'\]"):
        array_images(tmp_path / "a.npz")
    with pytest.raises(FileNotFoundError, match=r"expected an \.npz"):
        array_images(tmp_path / "b.npz")
