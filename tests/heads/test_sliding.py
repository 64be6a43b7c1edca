"""Windows against one pass and against a plain double loop."""

import copy

import pytest
import torch
from torch.nn import functional as F

from visionlab.backbones import create_backbone
from visionlab.heads import LinearSegmentationHead, MultiTaskModel, UPerSegmentationHead
from visionlab.heads.sliding import check_stride, sliding_classes, window_starts


def model(head) -> MultiTaskModel:
    torch.manual_seed(0)
    vit = create_backbone(
        "vit", img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, dynamic_img_size=True
    )
    return MultiTaskModel(vit, {"a": head}).eval()


@pytest.mark.parametrize("size", [(32, 32), (24, 32)])
def test_a_picture_that_fits_one_window_is_predicted_in_one_pass(size):
    whole = model(LinearSegmentationHead(32, 5))
    windows = copy.deepcopy(whole)
    windows.heads["a"].crop, windows.heads["a"].stride = 32, 21
    images = torch.randn(2, 3, *size)
    expected = whole.predict(images, task="a")
    assert torch.equal(windows.predict(images, task="a"), expected)
    padded = F.pad(images, (0, 64 - size[1], 0, 64 - size[0]), value=7.0)
    found = windows.predict(padded, task="a", size=torch.tensor([size, size]))
    crop = whole.predict(padded[..., :32, :32], task="a", size=torch.tensor([size, size]))
    assert torch.equal(found[:, : size[0], : size[1]], crop[:, : size[0], : size[1]])


def test_windows_are_averaged_as_in_a_plain_loop():
    net = model(UPerSegmentationHead(32, 5, channels=16, crop=32, stride=24))
    images, size = torch.randn(2, 3, 64, 80), torch.tensor([[64, 80], [40, 33]])
    total, count = torch.zeros(2, 5, 64, 80), torch.zeros(2, 1, 64, 80)
    with torch.no_grad():
        for i, (h, w) in enumerate(size.tolist()):
            for y in {0: [0, 24, 32], 1: [0, 8]}[i]:
                for x in {0: [0, 24, 48], 1: [0, 1]}[i]:
                    inside = torch.tensor([[min(h - y, 32), min(w - x, 32)]])
                    window = images[i : i + 1, :, y : y + 32, x : x + 32]
                    total[i, :, y : y + 32, x : x + 32] += net(window, task="a", size=inside)[0]
                    count[i, :, y : y + 32, x : x + 32] += 1
    expected = (total / count.clamp(min=1)).argmax(1)
    found = net.predict(images, task="a", size=size)
    assert (found == expected).float().mean() > 0.9999  # sums in another order
    assert found[1, 41:].eq(0).all()


@pytest.mark.parametrize("length", [1, 5, 10, 11, 17, 30, 31])
def test_windows_cover_an_axis_and_end_with_it(length):
    starts = window_starts(length, 10, 7)
    seen = {p for s in starts for p in range(s, s + 10)}
    assert seen >= set(range(length))
    assert max(starts) + 10 == max(length, 10)
    assert starts == sorted(set(starts))


def test_windows_run_in_small_groups_with_equal_result():
    def logits(windows, sizes):
        return torch.cat([windows, -windows], dim=1)

    images, size = torch.randn(1, 2, 20, 30), torch.tensor([[20, 30]])
    one, many = (
        sliding_classes(logits, images, size, crop=8, stride=5, windows_per_pass=n)
        for n in (1, 100)
    )
    assert torch.equal(one, many)
    assert torch.equal(one, torch.cat([images, -images], 1).argmax(1))


def test_mistakes_are_named():
    assert check_stride(512, None) == 341
    with pytest.raises(ValueError, match="stride is 341 without a crop"):
        LinearSegmentationHead(32, 5, stride=341)
    with pytest.raises(ValueError, match="stride is 33; it lies between 1 and the crop, 32 px"):
        UPerSegmentationHead(32, 5, crop=32, stride=33)
