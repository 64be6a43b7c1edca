import gzip

import numpy as np
import pytest
import torch

from visionlab.data import ArrayImages
from visionlab.data import fashion_mnist as fm
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


def test_npz(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros((5, 3, 3), np.uint8), y=np.arange(5))
    assert len(array_images(tmp_path / "a.npz", images="x", labels="y", limit=3)) == 3
    with pytest.raises(ValueError, match=r"no array 'images'; it has \['x', 'y'\]"):
        array_images(tmp_path / "a.npz")
    with pytest.raises(FileNotFoundError, match=r"expected an \.npz"):
        array_images(tmp_path / "b.npz")


def write_idx(folder, prefix, n):
    folder.mkdir(exist_ok=True, parents=True)
    images = np.arange(n * 784, dtype=np.int64).astype(np.uint8)
    (folder / f"{prefix}-images-idx3-ubyte.gz").write_bytes(
        gzip.compress(bytes(16) + images.tobytes())
    )
    labels = (np.arange(n) % 10).astype(np.uint8)
    (folder / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(
        gzip.compress(bytes(8) + labels.tobytes())
    )


def test_fashion_mnist_from_a_local_folder(tmp_path):
    write_idx(tmp_path, "train", 12)
    write_idx(tmp_path, "t10k", 5)
    train = fm.fashion_mnist(tmp_path)
    assert len(train) == 12
    assert int(train.images[1, 0, 0, 1]) == (784 + 1) % 256
    assert fm.fashion_mnist(tmp_path, split="test", limit=3).labels.tolist() == [0, 1, 2]


def test_fashion_mnist_sources_are_tried_in_order(tmp_path, monkeypatch):
    def download(scratch):
        write_idx(scratch / "raw", "train", 3)
        write_idx(scratch / "raw", "t10k", 3)
        return scratch / "raw"

    def fails(scratch):
        raise OSError("no network")

    monkeypatch.setattr(fm, "_from_torchvision", fails)
    monkeypatch.setattr(fm, "_from_debian", download)
    assert len(fm.fashion_mnist(tmp_path / "data")) == 3
    assert len(fm.fashion_mnist(tmp_path / "data")) == 3  # now local


def test_fashion_mnist_says_what_was_tried(tmp_path, monkeypatch):
    def fails(scratch):
        raise OSError("no network")

    monkeypatch.setattr(fm, "_from_torchvision", fails)
    monkeypatch.setattr(fm, "_from_debian", fails)
    with pytest.raises(
        FileNotFoundError, match=r"Tried: the folder .*torchvision.*Debian.*by hand"
    ):
        fm.fashion_mnist(tmp_path)


def test_truncated_file_is_named(tmp_path):
    write_idx(tmp_path, "train", 12)
    write_idx(tmp_path, "t10k", 5)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="truncated or no gzip"):
        fm.fashion_mnist(tmp_path)
