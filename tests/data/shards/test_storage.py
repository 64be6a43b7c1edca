"""Packed sets behind a URL: the shared cache, damage on the way, no waiting."""

import errno
import http.server
import multiprocessing
import threading
import time
from functools import partial
from pathlib import Path

import fsspec
import pytest
import torch
from shard_sets import COUNT, PER_SHARD, URL, flip

from visionlab.data import ImageShards, KeyedLoader
from visionlab.data.loading import DamagedDataError
from visionlab.data.shards import storage
from visionlab.data.shards.storage import ShardFolder
from visionlab.data.shards.verification import verify

SHARDS = -(-COUNT // PER_SHARD)


def batches(root, **options):
    loader = KeyedLoader(ImageShards(str(root), window=2, lanes=2, **options), 8, shuffle=True)
    return list(loader)


def same(a, b):
    return all(torch.equal(x[k], y[k]) for x, y in zip(a, b, strict=True) for k in x)


def shards_in(cache):
    return sorted(p.name.partition("-")[2] for p in Path(cache).glob("*.tar"))


@pytest.mark.parametrize("cached", [False, True])
def test_a_url_gives_the_batches_of_the_folder(packed, remote, tmp_path, cached):
    options = {"cache": str(tmp_path)} if cached else {}
    assert same(batches(packed), batches(URL, **options))
    assert len(shards_in(tmp_path)) == (SHARDS if cached else 0)


def test_a_cached_shard_is_fetched_once(packed, remote, tmp_path):
    first = batches(URL, cache=str(tmp_path))
    for name in list(remote.store):
        if name.endswith(".tar"):
            del remote.store[name]
    assert same(first, batches(URL, cache=str(tmp_path)))


def test_workers_share_the_cache(packed, remote, tmp_path):
    if len(storage.os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two cores")
    dataset = ImageShards(URL, cache=str(tmp_path))
    loader = KeyedLoader(dataset, 8, shuffle=True, num_workers=2)
    assert sorted(int(i) for b in loader for i in b["index"]) == list(range(COUNT))
    assert len(shards_in(tmp_path)) == SHARDS


def test_over_http(packed, tmp_path):
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(packed))
    handler.func.log_message = lambda *a: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        assert same(batches(packed), batches(url, cache=str(tmp_path)))
        server.shutdown()


def test_the_cache_keeps_its_size(packed, remote, tmp_path):
    largest = max(p.stat().st_size for p in packed.glob("*.tar"))
    limit = 4 * largest
    dataset = ImageShards(URL, cache=str(tmp_path), cache_gb=limit / 1e9, window=1, lanes=1)
    for batch in KeyedLoader(dataset, 4, shuffle=True):
        assert len(batch["label"])
        assert len(shards_in(tmp_path)) <= 4 + 4  # the limit, and what four threads fetch
    deadline = time.monotonic() + 10
    while len(shards_in(tmp_path)) > 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert 1 <= len(shards_in(tmp_path)) <= 4
    with pytest.raises(ValueError, match=r"cannot hold the .* GB that are read side by side"):
        ImageShards(URL, cache=str(tmp_path), cache_gb=2 * largest / 1e9, window=1)
    with pytest.raises(ValueError, match="window=None: shards would be fetched again"):
        ImageShards(URL, cache=str(tmp_path), cache_gb=limit / 1e9)


def test_room_is_made_by_taking_the_shard_used_longest_ago(packed, remote, tmp_path):
    folder = ShardFolder(URL, cache=tmp_path)
    parts = folder.index().shards
    folder.cache_bytes = sum(p.size for p in parts[:3])
    for age, part in zip((30, 10, 20), parts):
        path = folder.fetch(part)
        storage.os.utime(path, (time.time() - age,) * 2)
    folder.fetch(parts[0])  # used again
    folder.fetch(parts[3])
    assert shards_in(tmp_path) == ["shard-00000.tar", "shard-00001.tar", "shard-00003.tar"]


def test_a_cached_shard_of_another_size_is_fetched_again(packed, remote, tmp_path):
    folder = ShardFolder(URL, cache=tmp_path)
    part = folder.index().shards[1]
    path = folder.fetch(part)
    path.write_bytes(b"cut off")
    assert folder.fetch(part).read_bytes() == (packed / part.name).read_bytes()


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda data: None, r"memory://bucket/set/shard-00003\.tar is missing, but index"),
        (lambda data: data[:-9], r"shard-00003\.tar has \d+ bytes, index\.json says \d+: trunc"),
        (lambda data: b"", r"shard-00003\.tar has 0 bytes"),
    ],
)
def test_a_missing_or_short_remote_shard_is_one_clear_error(remote, tmp_path, cached, damage, text):
    path = "/bucket/set/shard-00003.tar"
    data = damage(remote.cat_file(path))
    remote.rm(path)
    if data is not None:
        remote.pipe_file(path, data)
    with pytest.raises(DamagedDataError, match=text):
        batches(URL, **({"cache": str(tmp_path)} if cached else {}))
    assert not list(tmp_path.glob(".*.part"))


def test_what_is_missing_is_asked_for_once(remote, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(storage.time, "sleep", lambda seconds: pytest.fail("waited for nothing"))
    remote.rm("/bucket/set/shard-00000.tar")
    dataset = ImageShards(URL, cache=str(tmp_path))
    with pytest.raises(DamagedDataError, match="is missing") as caught:
        dataset.shards[0]
    assert type(caught.value) is DamagedDataError


def test_a_transfer_that_breaks_off_is_tried_again(packed, remote, tmp_path, monkeypatch):
    original, calls = ShardFolder._check_size, []

    def short_at_first(self, part, size):
        calls.append(part.name)
        return original(self, part, size - 1 if len(calls) == 1 else size)

    folder = ShardFolder(URL, cache=tmp_path)
    part = folder.index().shards[2]
    monkeypatch.setattr(ShardFolder, "_check_size", short_at_first)
    assert folder.fetch(part).read_bytes() == (packed / part.name).read_bytes()
    assert len(calls) == 2


def test_a_changed_remote_shard_never_enters_the_cache(remote, tmp_path):
    path = "/bucket/set/shard-00003.tar"
    data = bytearray(remote.cat_file(path))
    data[1500] ^= 1
    remote.pipe_file(path, bytes(data))
    with pytest.raises(DamagedDataError, match="is damaged: its SHA-256 is not that of index"):
        batches(URL, cache=str(tmp_path))
    assert "shard-00003.tar" not in shards_in(tmp_path)
    (problem, *_) = verify(URL)
    assert problem.startswith(f"{URL}/shard-00003.tar has changed since packing")


def test_a_connection_that_fails_now_and_then_is_tried_again(remote, tmp_path, monkeypatch):
    original, calls = type(remote).open, []

    def flaky(self, path, *args, **kwargs):
        calls.append(path)
        if path.endswith(".tar") and len(calls) % 3:
            raise ConnectionResetError("by peer")
        return original(self, path, *args, **kwargs)

    monkeypatch.setattr(type(remote), "open", flaky)
    assert len(batches(URL, cache=str(tmp_path))) == 6
    folder = ShardFolder(URL, cache=tmp_path / "other")
    text = r"could not be read in 3 attempts \(ConnectionResetError: by peer\)"
    monkeypatch.setattr(type(remote), "open", _refuses)
    with pytest.raises(DamagedDataError, match=text):
        folder.fetch(folder.index().shards[0])


def _refuses(self, *args, **kwargs):
    raise ConnectionResetError("by peer")


def test_a_full_disk_says_so_and_leaves_the_cache_whole(remote, tmp_path, monkeypatch):
    folder = ShardFolder(URL, cache=tmp_path)
    first, second, *_ = folder.index().shards
    folder.fetch(first)

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(storage.os, "fsync", full)
    with pytest.raises(OSError, match=r"could not write .*shard-00001\.tar .*No space left"):
        folder.fetch(second)
    assert shards_in(tmp_path) == ["shard-00000.tar"]
    assert not list(tmp_path.glob(".*.part"))


def _fetch_and_die(cache, ready):
    """Holds the lock of a shard, then is killed."""
    folder = ShardFolder(URL, cache=cache)
    part = folder.index().shards[0]

    def stall(self, part, path):  # in place of the download
        ready.set()
        time.sleep(60)

    ShardFolder._download = stall
    folder.fetch(part)


def test_a_worker_that_dies_while_fetching_stops_nobody(packed, remote, tmp_path, monkeypatch):
    monkeypatch.undo()  # sleep is needed here
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    process = context.Process(target=_fetch_and_die, args=(tmp_path, ready))
    process.start()
    assert ready.wait(30)
    folder = ShardFolder(URL, cache=tmp_path)
    part = folder.index().shards[0]
    monkeypatch.setattr(storage, "_LOCK_TIMEOUT_S", 0.2)
    with pytest.raises(DamagedDataError, match="another process has been fetching"):
        folder.fetch(part)
    process.kill()
    process.join()
    assert folder.fetch(part).read_bytes() == (packed / part.name).read_bytes()


def test_what_a_killed_download_left_is_removed(remote, tmp_path):
    folder = ShardFolder(URL, cache=tmp_path)
    first, second, *_ = folder.index().shards
    left, other = (tmp_path / f".{folder.cached(p).name}.x1.part" for p in (first, second))
    for path in (left, other):
        path.write_bytes(b"half")
    folder.fetch(first)
    assert not left.exists()
    assert other.exists()  # somebody may be at it: its lock is not ours


def test_a_bit_turned_in_the_cache_is_fetched_again(packed, remote, tmp_path, caplog):
    dataset = ImageShards(URL, cache=str(tmp_path))
    part, row = dataset.shards.index.shards[1], dataset.shards.row(9)
    path = dataset.shards.folder.fetch(part)
    flip(path, int(row["image"]) + 200)
    expected = ImageShards(str(packed))[9]["image"]
    loader = KeyedLoader(dataset, 8)
    batches = list(loader)
    assert torch.equal(batches[1]["image"][1], expected)
    assert not loader.unreadable
    assert path.read_bytes() == (packed / part.name).read_bytes()
    assert caplog.text.count("shard-00001.tar: damaged in the cache, fetched again") == 1


@pytest.mark.parametrize("error", [ConnectionResetError("by peer"), TimeoutError("slow"),
                                   PermissionError(errno.EACCES, "no key")])  # fmt: skip
def test_a_read_that_fails_is_no_full_disk(remote, tmp_path, monkeypatch, error):
    def breaks(self, *args):
        raise error

    folder = ShardFolder(URL, cache=tmp_path)
    part = folder.index().shards[0]
    monkeypatch.setattr("fsspec.implementations.memory.MemoryFile.read", breaks, raising=False)
    with pytest.raises(DamagedDataError) as caught:
        folder.fetch(part)
    assert f"could not be read in 3 attempts ({type(error).__name__}: " in str(caught.value)
    assert "Free some space" not in str(caught.value)
    assert not list(tmp_path.glob(".*.part"))


def test_a_cache_that_cannot_be_written_is_said_at_once(remote, tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(errno.EROFS, "Read-only file system")

    folder = ShardFolder(URL, cache=tmp_path)
    part = folder.index().shards[0]
    monkeypatch.setattr("visionlab.atomic.tempfile.mkstemp", refuse)
    monkeypatch.setattr(storage.time, "sleep", lambda seconds: pytest.fail("waited for nothing"))
    with pytest.raises(OSError, match=r"could not write .*Read-only file system"):
        folder.fetch(part)


def test_a_range_request_that_fails_is_tried_again(packed, remote, monkeypatch):
    original, calls = type(remote.open("/bucket/set/shard-00000.tar")).read, []

    def flaky(self, *args):
        calls.append(args)
        if args and len(calls) % 3:
            raise ConnectionResetError("by peer")
        return original(self, *args)

    dataset = ImageShards(URL)
    monkeypatch.setattr("fsspec.implementations.memory.MemoryFile.read", flaky, raising=False)
    assert torch.equal(dataset[3]["image"], ImageShards(str(packed))[3]["image"])
    assert len(calls) >= 3


def test_no_server_is_one_clear_error(monkeypatch):
    monkeypatch.setattr(storage.time, "sleep", lambda seconds: None)
    with pytest.raises(DamagedDataError, match=r"index\.json could not be read in 3 attempts \(Cl"):
        ImageShards("http://127.0.0.1:9/set")


def test_a_backend_that_is_not_installed_is_named(monkeypatch):
    def missing(*args, **kwargs):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(ValueError, match=r"Install s3fs .* pip install 'visionlab\[remote\]'"):
        ShardFolder("s3://bucket/set")
