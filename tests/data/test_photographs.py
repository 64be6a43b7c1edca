import cv2
import numpy as np
import pytest
import torch

from visionlab.data.photographs import PhotographCrops, photograph_files
from visionlab.data.randomness import keyed_randomness


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for name, shape in (("a.png", (40, 50, 3)), ("sub/b.png", (30, 30, 3))):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / name), rng.integers(0, 256, shape, np.uint8))
    return tmp_path


@pytest.mark.parametrize("channels", [1, 3])
def test_crops_of_a_folder(folder, channels):
    crops = PhotographCrops(folder, size=16, length=5, channels=channels, scales=(1.0, 0.75))
    assert len(crops) == 5
    assert len(crops.images) == 4
    image = crops[0]["image"]
    assert image.shape == (channels, 16, 16)
    assert image.dtype == torch.uint8


def test_colour_is_rgb_and_crops_are_cut_from_the_photograph(folder):
    image = np.zeros((20, 20, 3), np.uint8)
    image[..., 2] = 200  # red, in OpenCV's order
    cv2.imwrite(str(folder / "a.png"), image)
    (folder / "sub/b.png").unlink()
    crop = PhotographCrops(folder, size=8, channels=3, scales=(1.0,))[0]["image"]
    assert crop.flatten(1).float().mean(1).tolist() == [200.0, 0.0, 0.0]


def test_the_key_alone_decides(folder):
    crops = PhotographCrops(folder, size=16, length=5)
    with keyed_randomness(1, 2, 3):
        first = crops[0]["image"]
    with keyed_randomness(1, 2, 3):
        again = crops[0]["image"]
    with keyed_randomness(1, 2, 4):
        other = crops[0]["image"]
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_fixed_crops_depend_on_the_index_alone(folder):
    crops = PhotographCrops(folder, size=16, length=5, fixed=True)
    assert torch.equal(crops[1]["image"], crops[1]["image"])
    assert not torch.equal(crops[1]["image"], crops[2]["image"])
    with pytest.raises(IndexError):
        crops[5]


def test_packaged_photographs_are_read_by_path():
    pytest.importorskip("skimage")
    names = [p.name for p in photograph_files("scikit-image")]
    assert "astronaut.png" in names
    assert "lfw_subset.npy" not in names
    assert len(names) == 12


def test_what_is_missing_is_said(folder, tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere; expected a folder"):
        PhotographCrops(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="no photograph of at least 64 x 64 pixels"):
        PhotographCrops(folder, size=64)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="pip install scikit-image"):
        PhotographCrops("scikit-image")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no photograph in"):
        photograph_files(tmp_path / "empty")


def test_an_unreadable_file_is_named(folder):
    (folder / "c.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"c\.png is no readable image"):
        PhotographCrops(folder, size=16)


def test_wrong_sizes(folder):
    with pytest.raises(ValueError, match="size and length must be at least 1"):
        PhotographCrops(folder, size=0)
