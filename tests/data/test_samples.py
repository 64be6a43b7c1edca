import logging

import numpy as np
import pytest
import torch
from PIL import Image

from visionlab.data.samples import (
    check_label,
    class_index,
    detection_sample,
    half_open,
    need_samples,
    read_image,
    segmentation_sample,
)

IMAGE = torch.zeros(3, 20, 30, dtype=torch.uint8)
CLASSES = ["cat", "dog"]


def sample(boxes, labels, **options):
    return detection_sample(IMAGE, boxes, labels, classes=CLASSES, source="a.jpg", **options)


def test_an_image_without_objects():
    empty = sample([], [])
    assert empty["boxes"].shape == (0, 4)
    assert empty["labels"].shape == empty["crowd"].shape == (0,)


def test_boxes_that_pass_the_border_by_rounding_are_clipped():
    assert sample([[-0.4, 0, 31.5, 20]], [1])["boxes"].tolist() == [[0, 0, 30, 20]]


def test_boxes_without_area_are_dropped_and_logged(caplog):
    with caplog.at_level(logging.WARNING, "visionlab"):
        kept = detection_sample(
            IMAGE, [[1, 1, 1, 9], [2, 2, 8, 8]], [0, 1], classes=CLASSES, source="degenerate.jpg",
            crowd=[True, False], masks=torch.ones(2, 20, 30, dtype=torch.uint8),
        )  # fmt: skip
    assert kept["labels"].tolist() == [1]
    assert kept["crowd"].tolist() == [False]
    assert kept["masks"].shape == (1, 20, 30)
    assert "degenerate.jpg: dropped 1 boxes of zero area" in caplog.text


@pytest.mark.parametrize("box", [[5, 5, 40, 9], [-9, 0, 5, 5], [0, 0, float("nan"), 5]])
def test_boxes_outside_the_image(box):
    with pytest.raises(ValueError, match=r"a\.jpg: the box .* lies outside its image of 30x20 px"):
        sample([box], [0])


def test_labels_outside_the_classes():
    with pytest.raises(ValueError, match=r"a\.jpg has the label 2, outside 0\.\.1 \(2 classes\)"):
        sample([[1, 1, 5, 5]], [2])
    with pytest.raises(ValueError, match="has the label -1"):
        check_label(-1, CLASSES, "b.jpg")
    with pytest.raises(ValueError, match=r"a\.xml has the class 'dgo'\. Did you mean 'dog'"):
        class_index("dgo", CLASSES, "a.xml")


def test_instance_masks_of_another_size():
    with pytest.raises(ValueError, match=r"instance masks are \(1, 5, 5\), expected \(1, 20, 30\)"):
        sample([[1, 1, 5, 5]], [0], masks=torch.zeros(1, 5, 5))


def test_segmentation_keeps_ignored_pixels():
    mask = np.full((20, 30), 255)
    mask[0, 0] = 1
    found = segmentation_sample(IMAGE, mask, classes=CLASSES, source="a.png")["mask"]
    assert found.unique().tolist() == [1, 255]


def test_segmentation_masks_of_another_size_or_label():
    with pytest.raises(ValueError, match=r"a\.png: the mask is \(5, 5\), the image \(20, 30\)"):
        segmentation_sample(IMAGE, np.zeros((5, 5)), classes=CLASSES, source="a.png")
    with pytest.raises(ValueError, match=r"a\.png has the label 7, outside 0\.\.1"):
        segmentation_sample(IMAGE, np.full((20, 30), 7), classes=CLASSES, source="a.png")


def test_label_maps_hold_whole_numbers_of_8_bit():
    for value in (-1, 256, 0.5, float("nan")):
        with pytest.raises(ValueError, match=r"a label map holds whole numbers from 0 to 255"):
            segmentation_sample(IMAGE, np.full((20, 30), value), classes=CLASSES, source="a.png")


def test_boxes_labels_and_flags_are_of_one_number():
    with pytest.raises(ValueError, match="1 boxes, 2 labels and 1 crowd flags"):
        sample([[1, 1, 5, 5]], [0, 1])
    with pytest.raises(ValueError, match="1 boxes, 1 labels and 2 crowd flags"):
        sample([[1, 1, 5, 5]], [0], crowd=[0, 1])
    with pytest.raises(ValueError, match=r"boxes of shape \(1, 5\), expected \(n, 4\)"):
        sample([[1, 1, 5, 5, 9]], [0])


def test_voc_boxes_become_half_open():
    boxes = half_open(np.array([[1, 1, 10, 5], [3, 3, 3, 9]]))
    assert boxes.tolist() == [[0, 0, 10, 5], [3, 3, 3, 9]]  # the degenerate one stays degenerate


def test_pictures_are_read_as_rgb(tmp_path):
    Image.new("L", (6, 4), 7).save(tmp_path / "gray.png")
    assert read_image(tmp_path / "gray.png").shape == (3, 4, 6)
    with pytest.raises(FileNotFoundError, match="images and annotations disagree"):
        read_image(tmp_path / "absent.png")
    (tmp_path / "broken.jpg").write_bytes(b"not a picture")
    with pytest.raises(ValueError, match=r"broken\.jpg is no readable picture"):
        read_image(tmp_path / "broken.jpg")


def test_an_empty_set():
    with pytest.raises(ValueError, match="here holds no sample"):
        need_samples(0, "here")
