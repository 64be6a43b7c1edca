"""Shards are fetched before they are needed."""

import time

import numpy as np
import pytest
from shard_sets import URL

from visionlab.data import ImageShards, KeyedLoader
from visionlab.data.loading import DamagedDataError
from visionlab.data.shards.ahead import FetchAhead


def test_shards_are_fetched_before_they_are_needed():
    fetched = []
    ahead = FetchAhead(fetched.append, np.repeat([4, 2, 7, 1], 10), horizon=10)
    for done, expected in ((0, [4, 2]), (9, [4, 2]), (10, [4, 2, 7]), (21, [4, 2, 7, 1])):
        ahead(done)
        deadline = time.monotonic() + 10
        while len(fetched) < len(expected) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert sorted(fetched) == sorted(expected)
    ahead.close()


def test_a_resumed_epoch_fetches_nothing_that_is_done():
    fetched = []
    ahead = FetchAhead(fetched.append, np.repeat([4, 2, 7], 10), horizon=0)
    ahead(25)
    ahead._pool.shutdown(wait=True)
    assert fetched == [7]


def test_what_fails_ahead_is_reported_by_whoever_needs_it(remote, tmp_path):
    remote.rm("/bucket/set/shard-00005.tar")
    dataset = ImageShards(URL, cache=str(tmp_path))
    loader = KeyedLoader(dataset, 4)  # in order: the last shard comes last
    seen = []
    with pytest.raises(DamagedDataError, match=r"shard-00005\.tar is missing"):
        seen += [int(i) for b in loader for i in b["index"]]
    assert dataset.fetch_ahead([0]) is not None
    assert ImageShards(URL).fetch_ahead([0]) is None
