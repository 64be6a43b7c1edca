"""Shares of ranks: nothing twice, nothing left out, as many batches on each."""

import numpy as np
import pytest

from visionlab.data import loading
from visionlab.data.arrays import ArrayImages
from visionlab.data.loading import KeyedLoader, KeyedSampler


def shares(
    monkeypatch, world: int, length: int, batch_size: int, **options
) -> list[list[list[int]]]:
    found = []
    for rank in range(world):
        monkeypatch.setattr(loading, "rank_and_world", lambda rank=rank: (rank, world))
        sampler = KeyedSampler(length, batch_size, seed=1, **options)
        batches = [[i for _, i in batch] for batch in sampler]
        assert len(batches) == len(sampler)
        found.append(batches)
    return found


@pytest.mark.parametrize("world", [2, 3, 5])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("length", range(5, 31))
def test_uneven_ends(monkeypatch, world, batch_size, length):
    ranks = shares(monkeypatch, world, length, batch_size, shuffle=False, drop_last=False)
    seen = sorted(i for rank in ranks for batch in rank for i in batch)
    assert seen == list(range(length))
    assert len({len(rank) for rank in ranks}) == 1  # else collectives would wait for ever
    sizes = [len(batch) for rank in ranks for batch in rank]
    assert min(sizes) >= 1
    # one sample more only where batches of one cannot be dealt evenly
    assert max(sizes) <= batch_size + (batch_size == 1)


@pytest.mark.parametrize("world", [1, 2, 4])
def test_global_batches_do_not_depend_on_the_number_of_ranks(monkeypatch, world):
    ranks = shares(monkeypatch, world, 41, 8 // world, shuffle=True, drop_last=True)
    whole = [sorted(i for rank in ranks for i in rank[b]) for b in range(len(ranks[0]))]
    (alone,) = shares(monkeypatch, 1, 41, 8, shuffle=True, drop_last=True)
    assert whole == [sorted(batch) for batch in alone]


def test_one_process_cuts_as_ever(monkeypatch):
    (alone,) = shares(monkeypatch, 1, 10, 4, shuffle=False, drop_last=False)
    assert alone == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_more_ranks_than_samples(monkeypatch):
    images = ArrayImages(np.zeros((3, 4, 4), np.uint8), np.zeros(3, np.int64))
    monkeypatch.setattr(loading, "rank_and_world", lambda: (0, 4))
    with pytest.raises(ValueError, match=r"3 samples for 4 ranks; use at most 3 ranks"):
        KeyedLoader(images, 2)
