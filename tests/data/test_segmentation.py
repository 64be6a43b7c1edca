import numpy as np
import pytest
from PIL import Image

from visionlab.data.segmentation import SegmentationFolder, remap_table


@pytest.fixture
def folder(tmp_path):
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    for stem in ("a", "b"):
        Image.new("RGB", (8, 6)).save(tmp_path / "images" / f"{stem}.jpg")
    labels = np.arange(48, dtype=np.uint8).reshape(6, 8) % 4
    Image.fromarray(labels).save(tmp_path / "masks" / "a.png")
    palette = Image.fromarray(labels, "P") if False else Image.fromarray(labels).convert("P")
    palette.putdata(labels.flatten().tolist())
    palette.save(tmp_path / "masks" / "b.png")
    return tmp_path


def opened(folder, **options):
    return SegmentationFolder(str(folder / "images"), str(folder / "masks"), **options)


def test_gray_and_palette_masks_hold_the_stored_numbers(folder):
    dataset = opened(folder, classes=4)
    assert dataset.classes == ["0", "1", "2", "3"]
    for i in range(2):
        assert dataset[i]["mask"].flatten().tolist() == [v % 4 for v in range(48)]


def test_camvid_void_and_ade_zero(folder):
    assert opened(folder, classes=3, ignore=[3])[0]["mask"].unique().tolist() == [0, 1, 2, 255]
    ade = opened(folder, classes=["wall", "sky", "road"], zero_is_ignored=True)
    assert ade[0]["mask"][0, :4].tolist() == [255, 0, 1, 2]


def test_remap_keeps_255():
    table = remap_table(zero_is_ignored=True, ignore=[5])
    assert table[[0, 1, 5, 6, 255]].tolist() == [255, 0, 255, 5, 255]


def test_mistakes(folder):
    with pytest.raises(ValueError, match=r"a\.png has the label 3, outside 0\.\.1"):
        opened(folder, classes=2)[0]
    Image.new("RGB", (8, 6)).save(folder / "masks" / "a.png")
    with pytest.raises(ValueError, match=r"a\.png has the shape \(6, 8, 3\)"):
        opened(folder, classes=4)[0]
    Image.new("L", (4, 4)).save(folder / "masks" / "a.png")
    with pytest.raises(ValueError, match=r"the mask is \(4, 4\), the image \(6, 8\)"):
        opened(folder, classes=4)[0]
    (folder / "masks" / "a.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"a\.png is no readable label map"):
        opened(folder, classes=4)[0]
    for classes in ("abc", 0, ["a", "a"]):
        with pytest.raises(ValueError, match="different names, or their number"):
            opened(folder, classes=classes)
    with pytest.raises(ValueError, match="ignore names the stored value 300"):
        opened(folder, classes=4, ignore=[300])
    (folder / "masks" / "b.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 pictures .* have no label map .* 'b\.jpg'"):
        opened(folder, classes=4)
    with pytest.raises(FileNotFoundError, match=r"\(label maps\)"):
        SegmentationFolder(str(folder / "images"), str(folder / "absent"), classes=4)
