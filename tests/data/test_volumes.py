import numpy as np
import pytest
import torch

from visionlab.data.randomness import keyed_randomness
from visionlab.data.volumes import VolumeSlices


@pytest.fixture
def file(tmp_path):
    hu = np.arange(20, dtype=np.int16)[:, None, None] * 100 + np.zeros((20, 12, 16), np.int16)
    np.savez(tmp_path / "volume.npz", hu=hu)
    return tmp_path / "volume.npz"


def test_blocks_of_z_do_not_touch(file):
    slices = {
        split: VolumeSlices(file, split=split, window=(0, 2000))
        for split in ("train", "val", "test")
    }
    heights = {s: (v.slices[:, 0, 0] * 20).round().int().tolist() for s, v in slices.items()}
    assert heights == {"train": list(range(14)), "val": [15, 16], "test": [18, 19]}
    image = slices["test"][1]["image"]
    assert image.shape == (1, 12, 16)
    assert image.dtype == torch.float32


def test_window_clips_to_the_unit_range(file):
    image = VolumeSlices(file, window=(200, 700)).slices
    assert image.min() == 0
    assert image.max() == 1


def test_crops_are_keyed(file):
    volume = VolumeSlices(file, size=8, length=50)
    assert len(volume) == 50
    with keyed_randomness(3):
        first = volume[7]["image"]
    with keyed_randomness(3):
        assert torch.equal(volume[7]["image"], first)
    assert first.shape == (1, 8, 8)
    held_out = VolumeSlices(file, split="val", size=8, length=50)
    assert torch.equal(held_out[7]["image"], held_out[7]["image"])


def test_errors(file, tmp_path):
    with pytest.raises(FileNotFoundError, match="CT volume 'hu'"):
        VolumeSlices(tmp_path / "nowhere.npz")
    with pytest.raises(ValueError, match=r"no array 'ct'; it has \['hu'\]"):
        VolumeSlices(file, array="ct")
    with pytest.raises(ValueError, match="split is"):
        VolumeSlices(file, split="dev")
    with pytest.raises(ValueError, match=r"crops of 13 do not fit slices of \(12, 16\)"):
        VolumeSlices(file, size=13)
