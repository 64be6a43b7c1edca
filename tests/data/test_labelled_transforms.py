import pytest
import torch
from torchvision import tv_tensors

from visionlab.data.labelled_transforms import fit_inside, jitter_crop, shorter_side
from visionlab.data.randomness import keyed_randomness


def detection(boxes, size=(30, 60)):
    return {
        "image": tv_tensors.Image(torch.full((3, *size), 200, dtype=torch.uint8)),
        "boxes": tv_tensors.BoundingBoxes(
            torch.tensor(boxes).reshape(-1, 4).float(), format="XYXY", canvas_size=size
        ),
        "labels": torch.arange(len(boxes)),
        "crowd": torch.zeros(len(boxes), dtype=torch.bool),
    }


def test_fit_inside_scales_boxes_with_the_picture():
    moved = fit_inside(20)(detection([[30.0, 15, 60, 30]]))
    assert moved["image"].shape == (3, 10, 20)
    assert moved["boxes"].tolist() == [[10, 5, 20, 10]]


def test_what_a_crop_has_cut_off_is_dropped_with_its_label():
    transform = jitter_crop(16, scale=(2.0, 2.0), horizontal_flip=False)
    seen = set()
    for seed in range(20):
        with keyed_randomness(seed):
            moved = transform(detection([[0.0, 0, 6, 6], [50.0, 20, 60, 30]]))
        assert moved["image"].shape == (3, 16, 16)
        assert len(moved["boxes"]) == len(moved["labels"]) == len(moved["crowd"])
        if len(moved["boxes"]):
            assert moved["boxes"].min() >= 0
            assert moved["boxes"].max() <= 16
        seen.add(tuple(moved["labels"].tolist()))
    assert () in seen
    assert len(seen) > 1


def test_pictures_without_boxes_and_masks_with_padding():
    with keyed_randomness(1):
        moved = jitter_crop(32, scale=(0.5, 0.5))(detection([]))
        assert moved["boxes"].shape == (0, 4)
        sample = {
            "image": tv_tensors.Image(torch.zeros(3, 30, 60, dtype=torch.uint8)),
            "mask": tv_tensors.Mask(torch.zeros(30, 60, dtype=torch.uint8)),
        }
        mask = jitter_crop(32, scale=(0.5, 0.5))(sample)["mask"]
    assert mask.shape == (32, 32)
    assert mask.unique().tolist() == [0, 255]  # what was padded is ignored


def test_equal_keys_give_equal_samples():
    results = []
    for _ in range(2):
        with keyed_randomness(3, 5):
            results.append(jitter_crop(16)(detection([[10.0, 5, 50, 25]]))["boxes"].tolist())
    assert results[0] == results[1]


def test_instance_masks_go_with_their_boxes():
    sample = detection([[0.0, 0, 6, 6], [40.0, 10, 60, 30]])
    masks = torch.zeros(2, 30, 60, dtype=torch.uint8)
    masks[0, :6, :6] = masks[1, 10:30, 40:60] = 1
    sample["masks"] = tv_tensors.Mask(masks)
    for seed in range(10):
        with keyed_randomness(seed):
            moved = jitter_crop(24, scale=(0.6, 1.5))(sample)
        assert len(moved["masks"]) == len(moved["boxes"])
        assert moved["masks"].max() <= 1
        for mask, box in zip(moved["masks"], moved["boxes"].tolist()):
            rows, columns = torch.nonzero(mask, as_tuple=True)
            extent = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert all(abs(int(e) - b) <= 1.5 for e, b in zip(extent, box))


@pytest.mark.parametrize("scale", [(0.1, 0.3), (0.1, 2.0), (1.9, 2.0)])
def test_large_scale_jitter_keeps_boxes_masks_and_picture_together(scale):
    """A bright object on dark ground: its box, its mask and its pixels say the same."""
    sample = detection([[10.0, 5, 40, 25]])
    sample["image"] = tv_tensors.Image(torch.zeros(3, 30, 60, dtype=torch.uint8))
    sample["image"][:, 5:25, 10:40] = 255
    masks = torch.zeros(1, 30, 60, dtype=torch.uint8)
    masks[0, 5:25, 10:40] = 1
    sample["masks"] = tv_tensors.Mask(masks)
    seen = 0
    for seed in range(30):
        with keyed_randomness(seed):
            moved = jitter_crop(64, scale=scale)(sample)
        assert moved["image"].shape == (3, 64, 64)
        assert moved["masks"].shape[-2:] == (64, 64)
        for mask, box in zip(moved["masks"], moved["boxes"].tolist()):
            seen += 1
            bright = moved["image"][0] > 127
            assert (bright ^ mask.bool()).sum() <= 2 * (mask.sum().sqrt() * 2 + 4)  # rims
            x1, y1, x2, y2 = (round(v) for v in box)
            assert mask[max(y1 - 1, 0) : y2 + 1, max(x1 - 1, 0) : x2 + 1].sum() == mask.sum()
            assert abs(int(mask.sum()) - (x2 - x1) * (y2 - y1)) <= 2 * (x2 - x1 + y2 - y1 + 4)
    assert seen >= 10


def test_the_shorter_side_is_set_and_the_longer_limited():
    mask = tv_tensors.Mask(torch.zeros(30, 60, dtype=torch.uint8))
    sample = {"image": tv_tensors.Image(torch.zeros(3, 30, 60, dtype=torch.uint8)), "mask": mask}
    assert shorter_side(15)(sample)["image"].shape == (3, 15, 30)
    assert shorter_side(15)(sample)["mask"].shape == (15, 30)
    assert shorter_side(45, max_size=60)(sample)["image"].shape == (3, 30, 60)
