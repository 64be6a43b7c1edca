"""The same bytes each time, after any interruption, too."""

import os

import pytest
from shard_sets import content, copy_of, flip, make_packed

from visionlab.data.shards import packing, writing
from visionlab.data.shards.sources import image_folder


def test_several_processes_give_the_same_bytes(folder, packed, tmp_path):
    assert content(make_packed(folder, tmp_path / "set", processes=2)) == content(packed)


@pytest.mark.parametrize("stop", range(6))
@pytest.mark.parametrize("record_lost", [False, True])
def test_goes_on_after_any_interruption(folder, packed, tmp_path, monkeypatch, stop, record_lost):
    """Stopped in the middle of each shard, or between it and its record."""
    target, original, made = tmp_path / "set", writing.write_shard, []

    def interrupted(path, *rest, **options):
        if len(made) == stop and not record_lost:
            path.with_name(f".{path.name}.x.part").write_bytes(b"half a shard")
            raise KeyboardInterrupt
        made.append(path)
        record = original(path, *rest, **options)
        if len(made) == stop + 1 and record_lost:
            raise KeyboardInterrupt
        return record

    monkeypatch.setattr(packing, "write_shard", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make_packed(folder, target)
    assert not (target / "index.json").exists()
    monkeypatch.setattr(packing, "write_shard", original)
    result = packing.pack(image_folder(folder), target, samples_per_shard=7)
    assert result.kept == stop
    assert content(target) == content(packed)


def test_a_packing_process_that_dies_is_one_clear_error():
    with pytest.raises(RuntimeError, match=r"packing process was killed .* start the same command"):
        list(packing._results(os._exit, iter(range(1, 4)), 2))


def test_mends_a_damaged_set_and_makes_no_more_than_that(folder, packed, tmp_path):
    target = copy_of(packed, tmp_path / "set")
    (target / "shard-00001.tar").unlink()
    flip(target / "shard-00004.tar", 3000)
    before = (target / "shard-00002.tar").stat().st_mtime_ns
    result = packing.pack(image_folder(folder), target, samples_per_shard=7)
    assert (result.kept, result.made) == (4, 2)
    assert content(target) == content(packed)
    assert (target / "shard-00002.tar").stat().st_mtime_ns == before
    flip(target / "samples.npy", 300)
    assert packing.pack(image_folder(folder), target, samples_per_shard=7).made == 6
    assert content(target) == content(packed)
