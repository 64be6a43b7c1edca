"""``index.json``: what it counts, and what it refuses."""

import json

import pytest
from shard_sets import COUNT, PER_SHARD, copy_of

from visionlab.data import ImageShards


def edited(packed, target, **changes):
    """A set whose index was rewritten, checksum and all."""
    from visionlab.data.shards.index import _checksum

    damaged = copy_of(packed, target)
    content = json.loads((damaged / "index.json").read_text())
    del content["checksum"]
    content |= changes
    content["checksum"] = _checksum(content)
    (damaged / "index.json").write_text(json.dumps(content))
    return str(damaged)


def test_shards_hold_as_many_samples_as_asked(packed):
    parts = ImageShards(str(packed)).shards.index.shards
    assert [p.count for p in parts] == [PER_SHARD] * 5 + [COUNT - 5 * PER_SHARD]


def test_indices_that_cannot_be_used(packed, tmp_path):
    part = {"name": "../secret", "size": 1, "sha256": "", "count": COUNT}
    for number, (changes, text) in enumerate([
        ({"version": 2}, "has version 2, this visionlab reads version 1"),
        ({"format": "other"}, "is no index of packed shards"),
        ({"count": 40}, "counts disagree"),
        ({"shards": []}, "holds no sample, or its counts disagree"),
        ({"shards": [part]}, r"names \['../secret'\]; expected plain names"),
        ({"samples": {**part, "name": "index.json", "extra": 1}}, "misnames an entry"),
        ({"kind": "detection"}, "holds a detection set, 'image_shards' reads classification"),
    ]):  # fmt: skip
        with pytest.raises(ValueError, match=text):
            ImageShards(edited(packed, tmp_path / str(number), **changes))


def test_an_index_that_was_edited_by_hand(packed, tmp_path):
    damaged = copy_of(packed, tmp_path / "set")
    text = (damaged / "index.json").read_text()
    (damaged / "index.json").write_text(text.replace("class2", "klass2"))
    with pytest.raises(ValueError, match="changed or damaged after packing"):
        ImageShards(str(damaged))
    (damaged / "index.json").write_text(text[:200])
    with pytest.raises(ValueError, match=r"index\.json is damaged or truncated"):
        ImageShards(str(damaged))
