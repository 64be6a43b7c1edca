import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from visionlab.data.pictures import cut_crops, read_pictures


def pixels(seed: int, *, height: int = 20, width: int = 24) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(3):
        Image.fromarray(pixels(i)).save(tmp_path / f"{i}.png")
    (tmp_path / "notes.txt").write_text("no picture")
    return tmp_path


def archive(path: Path, key: str = "png") -> Path:
    chunks = []
    for i in range(3):
        buffer = io.BytesIO()
        Image.fromarray(pixels(i)).save(buffer, "PNG")
        chunks.append(np.frombuffer(buffer.getvalue(), np.uint8))
    np.savez(path, **{key: np.concatenate(chunks), "offset": np.cumsum([0, *map(len, chunks)])})
    return path


def test_a_folder_an_archive_and_a_file_hold_the_same_pictures(folder: Path) -> None:
    expected = torch.from_numpy(pixels(1)).permute(2, 0, 1) / 255
    packed = archive(folder / "packed.npz")
    for pictures in (read_pictures(folder, channels=3), read_pictures(packed, channels=3)):
        assert len(pictures) == 3
        torch.testing.assert_close(pictures[1], expected)
    torch.testing.assert_close(read_pictures(folder / "1.png", channels=3)[0], expected)


def test_gray_is_luma(folder: Path) -> None:
    expected = torch.from_numpy(pixels(0)).double() @ torch.tensor([0.299, 0.587, 0.114]).double()
    torch.testing.assert_close(read_pictures(folder)[0][0], (expected / 255).float())


def test_a_suffix_takes_a_range(folder: Path) -> None:
    packed = archive(folder / "packed.npz")
    for source in (folder, packed):
        chosen = read_pictures(f"{source}:1:3")
        assert len(chosen) == 2
        torch.testing.assert_close(chosen[0], read_pictures(source)[1])


def test_a_volume_is_windowed(tmp_path: Path) -> None:
    hu = np.array([-1024, -1000, 0, 1000, 2900, 500], np.int16).reshape(1, 2, 3)
    np.savez(tmp_path / "ct.npz", hu=hu)
    expected = torch.tensor([[[0.0, 0.0, 0.5], [1.0, 1.0, 0.75]]])
    torch.testing.assert_close(read_pictures(tmp_path / "ct.npz")[0], expected)
    with pytest.raises(ValueError, match=r"ct.npz is a CT volume: it has one channel, not 3"):
        read_pictures(tmp_path / "ct.npz", channels=3)


def test_crops_depend_on_the_seed_alone(folder: Path) -> None:
    pictures = read_pictures(folder)
    crops = cut_crops(pictures, 16, per_picture=2, seed=3)
    assert crops.shape == (6, 1, 16, 16)
    assert torch.equal(crops, cut_crops(pictures, 16, per_picture=2, seed=3))
    assert not torch.equal(crops, cut_crops(pictures, 16, per_picture=2, seed=4))
    with pytest.raises(ValueError, match="picture 0 is 20x24, smaller than the crop of 32"):
        cut_crops(pictures, 32)
    with pytest.raises(ValueError, match="crops of 8 px, 0 from each of"):
        cut_crops(pictures, 8, per_picture=0)


def test_messages(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="channels is 1 or 3, got 2"):
        read_pictures(tmp_path, channels=2)
    with pytest.raises(FileNotFoundError, match=r"no file .*gone.npz"):
        read_pictures(tmp_path / "gone.npz")
    with pytest.raises(FileNotFoundError, match="no photograph in"):
        read_pictures(tmp_path)
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    with pytest.raises(ValueError, match=r"other.npz holds \['x'\]; expected 'offset' with"):
        read_pictures(tmp_path / "other.npz")
    with pytest.raises(ValueError, match=r"no samples?|holds no"):
        read_pictures(f"{archive(tmp_path / 'p.npz')}:3:3")
