"""Files and folders as items, in order, each under a name that tells its place."""

import pytest

from visionlab.data.files import PathData


@pytest.fixture
def root(tmp_path):
    for name in ("b", "a/frames", "c.mp4", ".hidden"):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path


def test_paths_are_sorted_and_named(root):
    data = PathData(root)
    assert [batch["name"] for batch in data.predict_dataloader()] == ["a", "b", "c.mp4"]
    assert data.item(1) == {"path": str((root / "b").resolve()), "name": "b", "index": 1}
    assert PathData(root, pattern="*/frames").item(0)["name"] == "a__frames"
    assert [p.name for p in PathData(root, pattern="*.mp4").paths] == ["c.mp4"]


def test_a_link_out_of_the_folder_keeps_its_own_name(root, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "video"
    elsewhere.mkdir()
    (root / "link").symlink_to(elsewhere)
    assert "video" in [PathData(root).item(i)["name"] for i in range(4)]


def test_empty_folders_are_said(root):
    with pytest.raises(FileNotFoundError, match="no such folder: none"):
        PathData("none")
    with pytest.raises(ValueError, match=r"matches '\*\.xyz'"):
        PathData(root, pattern="*.xyz")
