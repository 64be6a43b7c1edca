"""Fashion-MNIST from a folder, else from the first source that answers."""

import gzip

import numpy as np
import pytest

from visionlab.data import fashion_mnist as fm


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
