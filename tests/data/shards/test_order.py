"""The shuffled order beside its slow twin; few shards at a time."""

import numpy as np
import pytest
import torch

from visionlab.data.loading import permutation
from visionlab.data.shards.order import shuffled_order


def slow_order(counts, seed, epoch, window, lanes):
    """`shuffled_order`, written out: who is dealt what, one sample at a time."""
    from visionlab.data.randomness import mix

    generator = torch.Generator().manual_seed(mix(seed, epoch, 0x5B))
    total = sum(counts)
    shards = torch.randperm(len(counts), generator=generator).tolist()
    stream = [sum(counts[:s]) + i for s in shards for i in range(counts[s])]
    keys = torch.rand(total, generator=generator).tolist()
    queues, start = [], 0
    for lane in range(lanes):
        length = total // lanes + (lane < total % lanes)
        stretch = window * max(counts)
        queue = []
        for at in range(start, start + length, stretch):
            inside = range(at, min(at + stretch, start + length))
            queue += [stream[i] for i in sorted(inside, key=keys.__getitem__)]
        queues.append(queue)
        start += length
    return [queues[p % lanes][p // lanes] for p in range(total)]


@pytest.mark.parametrize("counts", [[7] * 5 + [6], [5], [1, 9, 3, 4]])
@pytest.mark.parametrize(("window", "lanes"), [(1, 1), (2, 1), (2, 3), (1, 5), (9, 2)])
def test_windowed_order_equals_its_slow_twin(counts, window, lanes):
    lanes = min(lanes, sum(counts))
    fast = shuffled_order(counts, seed=4, epoch=2, window=window, lanes=lanes).tolist()
    assert fast == slow_order(counts, 4, 2, window, lanes)
    assert sorted(fast) == list(range(sum(counts)))
    assert fast == shuffled_order(counts, seed=4, epoch=2, window=window, lanes=lanes).tolist()
    if sum(counts) > 5:
        assert fast != shuffled_order(counts, seed=4, epoch=3, window=window, lanes=lanes).tolist()


def test_without_a_window_the_order_is_that_of_an_unpacked_set():
    assert torch.equal(shuffled_order([3, 4], seed=1, epoch=5, window=None), permutation(7, 1, 5))


def test_a_window_reads_few_shards_at_a_time_and_ranks_read_their_own():
    counts = [100] * 40
    order = shuffled_order(counts, seed=0, epoch=0, window=2, lanes=4).numpy()
    for at in range(0, 4000, 100):  # 25 samples of each of 4 lanes
        assert len(np.unique(order[at : at + 100] // 100)) <= 4 * 6
    shards = [set(order[rank::4] // 100) for rank in range(4)]
    assert sum(map(len, shards)) <= 40 + 3  # a cut shard belongs to two lanes
    neighbours = np.abs(np.diff(order[0::4])) == 1
    assert neighbours.mean() < 0.05
