import json
from pathlib import Path

import pytest

from visionlab.rotation.journal import Journal


def killed(path: Path, *rows: dict, **settings: object) -> None:
    """A run that wrote rows and never came to its end."""
    with Journal(path, settings) as journal:
        for row in rows:
            journal.append(row)


def test_rows_survive_and_are_taken_over(tmp_path) -> None:
    path = tmp_path / "run/unfinished.jsonl"
    killed(path, {"frame": 0, "wx": float("nan")}, {"frame": 1, "wx": 0.1}, flow="lk")
    with Journal(path, {"flow": "lk"}) as again:
        assert [row["frame"] for row in again.rows] == [0, 1]
        again.append({"frame": 2, "wx": 0.2})
    with Journal(path, {"flow": "lk"}) as third:
        assert len(third.rows) == 3


def test_each_row_is_on_disk_at_once(tmp_path) -> None:
    with Journal(tmp_path / "u.jsonl", {}) as journal:
        journal.append({"frame": 0})
        assert (tmp_path / "u.jsonl").read_text().endswith('{"frame": 0}\tb160403d\n')


def test_a_torn_line_is_dropped(tmp_path) -> None:
    path = tmp_path / "u.jsonl"
    killed(path, {"frame": 0})
    with open(path, "a") as file:
        file.write('{"frame": 1, "wx"')
    with Journal(path, {}) as again:
        assert again.rows == [{"frame": 0}]
        again.append({"frame": 1})
    rows = [json.loads(line.partition("\t")[0]) for line in path.read_text().splitlines()]
    assert rows == [{}, {"frame": 0}, {"frame": 1}]


@pytest.mark.parametrize("line", [0, 1, 2])
def test_rows_from_a_flipped_bit_on_are_made_again(tmp_path, line) -> None:
    path = tmp_path / "u.jsonl"
    killed(path, {"frame": 0, "wx": 0.25}, {"frame": 1, "wx": 0.5})
    lines = path.read_bytes().splitlines(keepends=True)
    lines[line] = lines[line].replace(b"2", b"3") if b"2" in lines[line] else b"[" + lines[line][1:]
    path.write_bytes(b"".join(lines))
    with Journal(path, {}) as again:
        assert len(again.rows) == max(line - 1, 0)
        again.append({"frame": 9})
    with Journal(path, {}) as third:
        assert third.rows[-1] == {"frame": 9}


def test_other_settings_are_refused_and_named(tmp_path) -> None:
    killed(tmp_path / "u.jsonl", {"frame": 0}, flow="lk", stop=None)
    with pytest.raises(ValueError, match="flow 'lk' then, 'dis' now"):
        Journal(tmp_path / "u.jsonl", {"flow": "dis", "stop": None})


def test_a_finished_journal_is_gone(tmp_path) -> None:
    Journal(tmp_path / "u.jsonl", {}).delete()
    assert list(tmp_path.iterdir()) == []
