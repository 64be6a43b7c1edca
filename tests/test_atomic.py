"""A file is at any moment the old one or the new one."""

import errno
import logging
import os
from pathlib import Path

import pytest

from visionlab import atomic


def write(path, text, *, error=None, **options):
    with atomic.replacing(path, **options) as file:
        file.write(text.encode())
        if error is not None:
            raise error


def test_the_replaced_file_keeps_its_other_name(tmp_path):
    for text in ("one", "two", "three"):
        write(tmp_path / "f", text, keep=tmp_path / "before")
    assert [(tmp_path / n).read_text() for n in ("before", "f")] == ["two", "three"]
    (tmp_path / ".f.123.part").touch()
    atomic.remove_leftovers(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["before", "f"]


def test_a_kill_at_any_moment_of_a_save_leaves_two_files(tmp_path, monkeypatch):
    """Damage to one name must not reach the other: they are never links to one file."""
    last, before = tmp_path / "f", tmp_path / "before"
    for text in ("one", "two"):
        write(last, text, keep=before)
    replace, seen = Path.replace, []

    def watched(self, target):
        seen.append(os.path.samefile(last, before))
        replace(self, target)
        seen.append(os.path.samefile(last, before))

    monkeypatch.setattr(Path, "replace", watched)
    write(last, "three", keep=before)
    assert seen == [False] * 4


@pytest.mark.parametrize(
    "error", [RuntimeError("a bug"), ConnectionResetError("by peer"), KeyboardInterrupt()]
)
def test_what_the_body_raises_passes_as_it_is_and_nothing_is_left(tmp_path, error):
    write(tmp_path / "f", "old")
    with pytest.raises(type(error)) as caught:
        write(tmp_path / "f", "half", error=error)
    assert caught.value is error
    assert [p.name for p in tmp_path.iterdir()] == ["f"]
    assert (tmp_path / "f").read_text() == "old"


@pytest.mark.parametrize("where", ["body", "sync"])
def test_a_full_disk_is_explained_and_the_old_file_stays(tmp_path, monkeypatch, where):
    write(tmp_path / "f", "old")
    full = OSError(errno.ENOSPC, "No space left on device")

    def fails(*_):
        raise full

    if where == "sync":
        monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(atomic.UnwritableError, match=r"could not write .*No space left.* intact"):
        write(tmp_path / "f", "half", error=full if where == "body" else None)
    assert [p.name for p in tmp_path.iterdir()] == ["f"]
    assert (tmp_path / "f").read_text() == "old"


def test_a_disk_without_hard_links_keeps_no_second_name_and_says_so(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO, "visionlab")

    def refuses(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    write(tmp_path / "f", "old")
    monkeypatch.setattr(os, "link", refuses)
    write(tmp_path / "f", "new", keep=tmp_path / "before")
    assert [p.name for p in tmp_path.iterdir()] == ["f"]
    assert (tmp_path / "f").read_text() == "new"
    assert "before is not kept: no hard links" in caplog.text


def test_a_folder_that_cannot_be_made_is_explained(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(atomic.UnwritableError, match="could not write"):
        atomic.write_text("text", tmp_path / "file" / "below")


def test_only_a_full_disk_is_explained_to_others(tmp_path):
    told = atomic.explain_full(OSError(errno.EDQUOT, "Disk quota exceeded"), tmp_path)
    assert str(told).startswith(f"{tmp_path} cannot be written to (Disk quota exceeded)")
    assert atomic.explain_full(PermissionError(errno.EACCES, "no"), tmp_path) is None
    assert atomic.explain_full(ValueError("no"), tmp_path) is None
