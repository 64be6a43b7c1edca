"""A folder of pictures, packed in order, shuffled, and behind a URL; none of them to be changed."""

import fsspec
import pytest
from shard_sets import make_folder, make_packed, no_sync

from visionlab.data.shards import storage

__all__ = ["no_sync"]  # a fixture for all tests here


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="session")
def packed(folder, tmp_path_factory):
    return make_packed(folder, tmp_path_factory.mktemp("packed") / "set")


@pytest.fixture(scope="session")
def listed(folder, tmp_path_factory):
    return make_packed(folder, tmp_path_factory.mktemp("listed") / "set", seed=None)


@pytest.fixture
def remote(packed, monkeypatch):
    """The set in fsspec's memory file system; retries without waiting."""
    monkeypatch.setattr(storage.time, "sleep", lambda seconds: None)
    filesystem = fsspec.filesystem("memory")
    for path in packed.iterdir():
        filesystem.pipe_file(f"/bucket/set/{path.name}", path.read_bytes())
    yield filesystem
    filesystem.rm("/bucket", recursive=True)
