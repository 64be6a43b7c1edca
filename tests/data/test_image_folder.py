"""Image folders: what is read, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from visionlab.data import ImageFolder, KeyedLoader
from visionlab.data.loading import DamagedDataError


def test_folders_that_do_not_fit(tmp_path, folder):
    with pytest.raises(FileNotFoundError, match="no folder"):
        ImageFolder(tmp_path / "nowhere")
    (tmp_path / "empty" / "class").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="holds no images"):
        ImageFolder(tmp_path / "empty")
    for path in folder.glob("class1/*"):
        path.unlink()
    one = folder / "one"
    (one / "a").mkdir(parents=True)
    (folder / "class0" / "0.png").rename(one / "a" / "0.png")
    with pytest.raises(ValueError, match=r"one class \(a\)"):
        ImageFolder(one)
    assert len(ImageFolder(one, labelled=False)) == 1


def test_a_name_with_a_colon_stays_whole(tmp_path):
    for name in ("a: b/0.png", "a: b/1.png", "c/2.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (4, 4)).save(tmp_path / name)
    (tmp_path / "a: b/1.png").write_bytes(b"no picture")
    loader = KeyedLoader(ImageFolder(tmp_path), 3)
    assert len(list(loader)) == 1
    assert list(loader.unreadable) == [str(tmp_path / "a: b/1.png")]


def test_pictures_come_as_rgb_bytes_with_the_index_of_their_folder(folder):
    Image.new("L", (5, 7), 9).save(folder / "class0" / "gray.png")
    data = ImageFolder(folder, transform=lambda image: image.flip(-1))
    assert data.classes == ["class0", "class1"]
    assert len(data) == 13
    for i, (path, label) in enumerate(data.samples):
        stored = np.asarray(Image.open(path).convert("RGB")).transpose(2, 0, 1)[..., ::-1]
        np.testing.assert_array_equal(data[i]["image"].numpy(), stored)
        assert int(data[i]["label"]) == label == int(Path(path).parent.name[-1])


def test_a_picture_that_vanishes_stops_the_run(folder):
    data = ImageFolder(folder)
    (folder / "class0" / "0.png").unlink()
    with pytest.raises(DamagedDataError, match=r"0\.png was there when the run started"):
        data[0]
