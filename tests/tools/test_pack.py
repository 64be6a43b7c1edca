"""tools/pack.py: what it prints and refuses; goes on after a kill; never over another set."""

import errno
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image
from shard_sets import COUNT, content, copy_of, flip, make_folder, make_packed, no_sync

from visionlab.data import ImageShards

__all__ = ["no_sync"]  # a fixture for all tests here


ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("pack", ROOT / "tools" / "pack.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def packed(folder, tmp_path_factory):
    return make_packed(folder, tmp_path_factory.mktemp("packed") / "set")


@pytest.fixture
def run(tool, capsys):
    """Call the tool; gives (exit status, standard output, standard error)."""

    def call(*arguments):
        status = tool.main([str(a) for a in arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


def test_packs_and_verifies(run, folder, packed, tmp_path):
    options = ("--samples-per-shard", 7)
    status, out, _ = run(folder, tmp_path / "set", *options)
    assert status == 0
    assert "41 pictures in 6 shards (0 kept, 6 made)" in out
    assert content(tmp_path / "set") == content(packed)
    status, out, _ = run(folder, tmp_path / "set", *options)
    assert status == 0
    assert "(6 kept, 0 made)" in out
    assert content(tmp_path / "set") == content(packed)
    assert run("--verify", tmp_path / "set")[:2] == (
        0,
        f"{tmp_path}/set: every byte is as packed\n",
    )


def test_help_reads_well(run, capsys):
    with pytest.raises(SystemExit):
        run("--help")
    text = capsys.readouterr().out
    assert "python tools/pack.py data/imagenet/train data/shards/train" in text
    assert max(map(len, text.splitlines())) <= 100
    with pytest.raises(SystemExit):
        run("only_a_source")
    assert "give SOURCE and TARGET, or --verify FOLDER" in capsys.readouterr().err


def test_a_smaller_packing(run, tmp_path):
    folder = tmp_path / "pictures" / "a"
    folder.mkdir(parents=True)
    Image.new("RGB", (300, 150), (200, 30, 30)).save(folder / "large.jpg", quality=100)
    Image.new("RGB", (60, 90)).save(folder / "small.png")
    (folder / "broken.jpg").write_bytes(b"no picture")
    status, out, _ = run(folder.parent, tmp_path / "set", "--shorter-side", 100, "--as-listed")
    assert status == 0
    assert "1 pictures cannot be decoded and were packed as they are: a/broken.jpg" in out
    shards = ImageShards(str(tmp_path / "set"), labelled=False)
    assert shards[1]["image"].shape == (3, 100, 200)
    assert shards[2]["image"].shape == (3, 90, 60)  # never larger
    assert shards.shards[2].image == (folder / "small.png").read_bytes()
    assert shards.shards[0].image == b"no picture"


def test_coco(run, tmp_path):
    folder = make_folder(tmp_path / "pictures", 3, classes=1) / "class0"
    images = [{"id": i, "file_name": p.name, "height": 20, "width": 24}
              for i, p in enumerate(sorted(folder.iterdir()))]  # fmt: skip
    text = {"images": images, "annotations": [], "categories": [{"id": 1, "name": "cat"}]}
    (tmp_path / "a.json").write_text(json.dumps(text))
    arguments = (folder, tmp_path / "set", "--coco", tmp_path / "a.json")
    status, _, err = run(*arguments, "--shorter-side", 10)
    assert status == 1
    assert "boxes are in pixels of the stored pictures" in err
    assert run(*arguments)[0] == 0
    assert run("--verify", tmp_path / "set")[0] == 0
    (folder / images[0]["file_name"]).unlink()
    status, _, err = run(*arguments)
    assert (status, "lists 1 images that" in err) == (1, True)


# tools/pack.py with shards that are never finished from a certain one on; patched at the top, for
# processes that are spawned run it, too
BLOCKED = """
import os, sys, time
from pathlib import Path
from visionlab.data.shards import packing

tool, ready, first, *arguments = sys.argv[1:]
original = packing.write_shard

def write_shard(path, *rest, **options):
    if path.name < first:
        return original(path, *rest, **options)
    path.with_name(f".{path.name}.x.part").write_bytes(b"half a shard")
    Path(ready, str(os.getpid())).touch()
    time.sleep(600)

packing.write_shard = write_shard
if __name__ == "__main__":
    sys.path.insert(0, str(Path(tool).parent))
    from pack import main

    sys.exit(main(arguments))
"""


def start_blocked(place, arguments, *, first, processes):
    """The tool, and the ids of the processes that are in the middle of a shard."""
    (place / "blocked.py").write_text(BLOCKED)
    ready = place / "ready"
    ready.mkdir()
    own = [str(ROOT / "tools" / "pack.py"), str(ready), first]
    process = subprocess.Popen([sys.executable, str(place / "blocked.py"), *own, *arguments])
    while len(list(ready.iterdir())) < processes and process.poll() is None:
        time.sleep(0.01)
    assert process.poll() is None
    return process, sorted(p.name for p in ready.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_goes_on_after_a_kill(run, folder, packed, tmp_path, how):
    target, options = tmp_path / "killed", ["--samples-per-shard", "7"]
    arguments = [str(folder), str(target), *options]
    process, _ = start_blocked(tmp_path, arguments, first="shard-00003.tar", processes=1)
    process.send_signal(how)
    process.wait(60)
    assert len(list(target.glob("*.tar"))) == 3
    assert not (target / "index.json").exists()
    status, out, _ = run(*arguments)
    assert (status, "(3 kept, 3 made)" in out) == (0, True)
    assert content(target) == content(packed)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="asks /proc about processes")
def test_no_process_stays_behind_when_the_tool_is_killed(folder, tmp_path):
    arguments = [str(folder), str(tmp_path / "set"), "--samples-per-shard", "7",
                 "--processes", "2"]  # fmt: skip
    process, children = start_blocked(tmp_path, arguments, first="shard-00000.tar", processes=2)
    assert str(process.pid) not in children
    assert all(running(child) for child in children)
    process.kill()
    process.wait(60)
    deadline = time.monotonic() + 60  # their packing would sleep for ten minutes
    while any(running(child) for child in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(running(child) for child in children)


def running(process: str) -> bool:
    """Whether a process is there and is no zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_full_disk_says_so_and_keeps_what_is_done(run, folder, packed, tmp_path, monkeypatch):
    synced = []

    def full(handle):
        synced.append(handle)
        if len(synced) > 5:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    target = tmp_path / "set"
    status, _, err = run(folder, target, "--samples-per-shard", 7)
    assert status == 1
    assert "No space left on device" in err
    assert "Free some space" in err
    assert not (target / "index.json").exists()
    assert not list(target.glob(".*.part"))
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    status, out, _ = run(folder, target, "--samples-per-shard", 7)
    assert status == 0
    assert "(0 kept" not in out
    assert content(target) == content(packed)


def test_never_touches_another_folder(run, folder, packed, tmp_path):
    other = tmp_path / "photos"
    other.mkdir()
    (other / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    more = make_folder(tmp_path / "more", COUNT + 1)
    half = tmp_path / "half"
    (half / ".packing").mkdir(parents=True)
    (half / ".packing" / "plan.json").write_text('{"seed": 9}')
    for source, target, options, text in [
        (folder, other, (), "holds other files; give a new or empty folder"),
        (folder, tmp_path / "file", (), "is a file; give a folder"),
        (more, packed, (), "holds a packed set of another source or with other options"),
        (folder, packed, ("--seed", 1), "seed: 0 there, 1 now"),
        (folder, packed, ("--shorter-side", 9), "shorter_side: None there, 9 now"),
        (folder, half, (), "holds an unfinished packing of another source"),
    ]:
        before = content(target) if target.is_dir() else target.read_bytes()
        status, _, err = run(source, target, "--samples-per-shard", 7, *options)
        assert status == 1
        assert err.splitlines()[-1].startswith("error: ")
        assert text in err
        assert (content(target) if target.is_dir() else target.read_bytes()) == before


def test_sources_that_are_none(run, folder, tmp_path):
    (tmp_path / "empty" / "a").mkdir(parents=True)
    hole = make_folder(tmp_path / "hole", 4)
    (hole / "class9").mkdir()
    for source, text in [
        (tmp_path / "nowhere", "no folder"),
        (tmp_path / "empty", "holds no pictures in class folders"),
        (hole, "1 class folders of .*hole hold no picture, first 'class9'"),
    ]:
        status, _, err = run(source, tmp_path / "set")
        assert status == 1
        assert re.search(text, err)
        assert not (tmp_path / "set").exists()
    status, _, err = run(folder, tmp_path / "set", "--samples-per-shard", 0)
    assert (status, "0 samples in a shard; expected at least 1" in err) == (1, True)


def test_verify_counts_problems_and_fails(run, packed, tmp_path):
    damaged = copy_of(packed, tmp_path / "set")
    flip(damaged / "shard-00001.tar", 1040)
    (damaged / "shard-00003.tar").unlink()
    status, out, _ = run("--verify", damaged)
    assert status == 1
    assert "shard-00003.tar is missing" in out
    assert re.search(r"\d problems", out)
    status, _, err = run("--verify", tmp_path)
    assert (status, "index.json; give a folder that tools/pack.py has finished" in err) == (1, True)
