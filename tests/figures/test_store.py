"""Tables in files: one line a row, one file a part."""

import json

import pytest

from visionlab.figures import read_folder, write_tables
from visionlab.figures.store import read_file


def test_a_table_replaces_the_one_of_its_id(make, tmp_path):
    write_tables(tmp_path, [make(), make(id="part.other"), make(id="second.name")])
    write_tables(tmp_path, [make(title="new")])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["part.json", "second.json"]
    tables = read_folder(tmp_path)
    assert list(tables) == ["part.name", "part.other", "second.name"]
    assert tables["part.name"].title == "new"


def test_a_row_is_a_line(make, tmp_path):
    (path,) = write_tables(tmp_path, [make()])
    lines = [x for x in path.read_text().splitlines() if '"what": "ours"' in x]
    assert json.loads(lines[0].rstrip(","))["values"] == {"ms": 1.0, "ratio": 0.5}


def test_bad_files_get_a_sentence(make, tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder of figures at"):
        read_folder(tmp_path / "none")
    path = tmp_path / "a.json"
    path.write_text("{")
    with pytest.raises(ValueError, match=r"a.json is not JSON"):
        read_file(path)
    path.write_text("[]")
    with pytest.raises(ValueError, match="no file of figures: it has no list 'tables'"):
        read_file(path)
    write_tables(tmp_path, [make()])
    (tmp_path / "copy.json").write_text((tmp_path / "part.json").read_text())
    path.unlink()
    with pytest.raises(ValueError, match=r"part.name is there twice"):
        read_folder(tmp_path)
