"""Every byte of a packed set is checked, and each damage is named."""

import hashlib
import io
import json
import os

import numpy as np
from shard_sets import COUNT, PER_SHARD, copy_of, flip

from visionlab.data import ImageShards
from visionlab.data.shards.index import _checksum
from visionlab.data.shards.verification import verify


def test_a_sound_set_has_no_problems_and_is_counted(packed):
    told = []
    assert verify(str(packed), progress=lambda done, total: told.append((done, total))) == []
    assert told[0] == (PER_SHARD, COUNT)
    assert told[-1] == (COUNT, COUNT)


def test_each_damage_is_named(packed, tmp_path):
    damaged = copy_of(packed, tmp_path / "set")
    row = ImageShards(str(packed)).shards.row(8)
    flip(damaged / "shard-00001.tar", int(row["image"]) + 40)
    flip(damaged / "shard-00002.tar", (damaged / "shard-00002.tar").stat().st_size - 3)
    (damaged / "shard-00003.tar").unlink()
    os.truncate(damaged / "shard-00004.tar", 700)
    problems = verify(str(damaged))
    expected = [
        "shard-00001.tar has changed since packing; 1 samples in it are damaged",
        "shard-00001.tar/00000008: the bytes of its image have changed",
        "shard-00002.tar has changed since packing; no sample in it is, only padding",
        "shard-00003.tar is missing",
        "shard-00004.tar has 700 bytes",
    ]
    assert len(problems) == len(expected)
    assert all(text in problem for text, problem in zip(expected, problems))


def test_a_table_that_names_other_members_does_not_fit(packed, tmp_path):
    """Two samples exchanged in table and index alike: all checksums hold, the tar says no."""
    damaged = copy_of(packed, tmp_path / "set")
    index = json.loads((damaged / "index.json").read_text())
    path = damaged / index["samples"]["name"]
    table = np.load(path)
    table[[0, 1]] = table[[1, 0]]
    np.save(buffer := io.BytesIO(), table)
    path.write_bytes(buffer.getvalue())
    index["samples"] |= {
        "size": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()
    }  # fmt: skip
    del index["checksum"]
    (damaged / "index.json").write_text(json.dumps({**index, "checksum": _checksum(index)}))
    (problem,) = verify(str(damaged))
    assert problem.endswith("shard-00000.tar: the table of samples does not fit it; pack again")
