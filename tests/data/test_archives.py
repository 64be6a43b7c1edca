import io

import numpy as np
import pytest
import torch
from PIL import Image

from visionlab.data.archives import PackedArchive, packed_images


def packed(**labels):
    buffers = []
    for value in (10, 200):
        buffer = io.BytesIO()
        Image.new("RGB", (16, 12), (value, value, value)).save(buffer, "JPEG")
        buffers.append(np.frombuffer(buffer.getvalue(), np.uint8))
    offset = np.cumsum([0, *(len(b) for b in buffers)])
    return {"jpeg": np.concatenate(buffers), "offset": offset, **labels}


@pytest.fixture
def write(tmp_path):
    def make(**labels):
        np.savez(tmp_path / "a.npz", **packed(**labels))
        return str(tmp_path / "a.npz")

    return make


def test_classification(write):
    dataset = PackedArchive(
        write(label=np.array([1, 0]), classes=np.array(["x", "y"])), "classification"
    )
    assert dataset.classes == ["x", "y"]
    assert [dataset[i]["label"] for i in range(2)] == [1, 0]
    assert dataset[1]["image"].shape == (3, 12, 16)
    assert abs(int(dataset[1]["image"].float().mean()) - 200) <= 2


def test_some_of_the_images(write):
    path = write(label=np.array([1, 0]))
    options = {"kind": "classification", "classes": 2}
    assert [s["label"] for s in PackedArchive(path, **options, every=2)] == [1]
    assert [s["label"] for s in PackedArchive(path, **options, first=1)] == [0]
    with pytest.raises(ValueError, match="holds no sample"):
        PackedArchive(path, **options, first=2)
    with pytest.raises(ValueError, match="every is 0 and first 0"):
        PackedArchive(path, **options, every=0)


def test_images_in_memory_are_those_of_the_archive(write, tmp_path):
    path = write(label=np.array([1, 0]), classes=np.array(["x", "y"]))
    dataset, archive = packed_images(path), PackedArchive(path, "classification")
    batch = dataset.batch([1, 0])
    assert batch["label"].tolist() == [0, 1]
    assert all(torch.equal(batch["image"][1 - i], archive[i]["image"]) for i in range(2))
    assert len(packed_images(path, every=2, first=1)) == 1
    content = dict(np.load(path))
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "JPEG")
    content["jpeg"] = np.concatenate([content["jpeg"], np.frombuffer(buffer.getvalue(), np.uint8)])
    content["offset"] = np.append(content["offset"], len(content["jpeg"]))
    content["label"] = np.array([1, 0, 1])
    np.savez(tmp_path / "b.npz", **content)
    with pytest.raises(ValueError, match="holds images of 2 sizes"):
        packed_images(str(tmp_path / "b.npz"))


def test_detection_boxes_of_each_image(write):
    boxes = np.array([[1, 0, 3, 3, 8, 8], [1, 1, 5, 5, 5, 9]])
    path = write(boxes=boxes)
    dataset = PackedArchive(path, "detection", classes=2)
    assert len(dataset[0]["boxes"]) == 0
    assert dataset[1]["boxes"].tolist() == [[3, 3, 8, 8]]
    shifted = PackedArchive(path, "detection", classes=2, one_based=True)
    assert shifted[1]["boxes"].tolist() == [[2, 2, 8, 8]]


def test_objects_of_one_class(write):
    boxes = np.array([[1, 0, 3, 3, 8, 8], [1, 4, 5, 5, 8, 9]])
    dataset = PackedArchive(write(boxes=boxes), "detection", classes=5, one_class=True)
    assert dataset.classes == ["object"]
    assert dataset[1]["labels"].tolist() == [0, 0]
    with pytest.raises(ValueError, match=r"label 4, outside 0..2"):  # the stored ones are checked
        PackedArchive(write(boxes=boxes), "detection", classes=3, one_class=True)[1]


def test_segmentation_with_a_void_class(write):
    mask = np.stack([np.full((12, 16), 11), np.zeros((12, 16))]).astype(np.uint8)
    dataset = PackedArchive(write(mask=mask), "segmentation", classes=11, ignore=[11], limit=1)
    assert len(dataset) == 1
    assert dataset[0]["mask"].unique().tolist() == [255]


def test_mistakes(write, tmp_path):
    path = write(label=np.array([0, 3]))
    with pytest.raises(ValueError, match="names no classes"):
        PackedArchive(path, "classification")
    with pytest.raises(ValueError, match="holds no boxes; it has"):
        PackedArchive(path, "detection", classes=2)
    with pytest.raises(ValueError, match=r"a\.npz\[1\] has the label 3"):
        PackedArchive(path, "classification", classes=2)[1]
    with pytest.raises(ValueError, match=r"no kind 'detecton'. Did you mean 'detection'"):
        PackedArchive(path, "detecton", classes=2)
    with pytest.raises(FileNotFoundError, match="image archive"):
        PackedArchive(str(tmp_path / "absent.npz"), "detection", classes=2)
    with pytest.raises(IndexError, match="no sample 2"):
        PackedArchive(path, "classification", classes=4)[2]
    with pytest.raises(ValueError, match="limit is -1; expected at least 1"):
        PackedArchive(path, "classification", classes=4, limit=-1)


@pytest.mark.parametrize(
    ("kind", "labels", "message"),
    [
        ("classification", {"label": np.array([0])}, r"shape \(1,\); expected whole numbers, one"),
        ("classification", {"label": np.array([0.0, 1.5])}, "is float64 of shape"),
        ("detection", {"boxes": np.zeros((2, 5))}, r"shape \(2, 5\); expected \(n, 6\) with"),
        ("detection", {"boxes": np.full((1, 6), 9.0)}, "with images 0 to 1 in the first column"),
        ("segmentation", {"mask": np.zeros((1, 6, 8), np.uint8)}, "one for each of 2"),
    ],
)
def test_labels_that_do_not_fit_the_pictures(write, kind, labels, message):
    with pytest.raises(ValueError, match=message):
        PackedArchive(write(**labels), kind, classes=2)


@pytest.mark.shared_data
def test_the_excerpts_open(shared_data):
    cifar = PackedArchive(str(shared_data("cifar10/val.npz")), "classification", limit=3)
    assert cifar[2]["image"].shape == (3, 32, 32)
    blood = PackedArchive(str(shared_data("bccd/val.npz")), "detection", one_based=True)
    assert blood.classes == ["RBC", "WBC", "Platelets"]
    assert sum(len(blood[i]["boxes"]) for i in range(len(blood))) == 1137  # 1,138, one degenerate
    roads = PackedArchive(
        str(shared_data("camvid/val.npz")), "segmentation", classes=11, ignore=[11]
    )
    assert set(roads[0]["mask"].unique().tolist()) <= {*range(11), 255}
