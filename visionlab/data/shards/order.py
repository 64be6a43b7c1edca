"""A shuffled order that reads few shards at a time, and is one for any number of ranks."""

from collections.abc import Sequence

import torch
from torch import Tensor

from visionlab.data.loading import permutation
from visionlab.data.randomness import mix


def shuffled_order(
    counts: Sequence[int], *, seed: int, epoch: int, window: int | None, lanes: int = 1
) -> Tensor:
    """Sample numbers in the order of an epoch: (sum of ``counts``,) int64, each once.

    Without a window: a permutation of the whole set, the very one of an unpacked set. With one:
    shards are permuted, their samples cut into ``lanes`` equal streams, and each stream is shuffled
    within stretches of ``window`` shards. The streams alternate sample by sample, so rank r of R
    meets the streams r, r + R, ... alone (R divides ``lanes``) and no other shard.

    Args:
        counts: samples of each shard.
        seed: of the run.
        epoch: number of the epoch.
        window: shards that are shuffled together.
        lanes: streams; 1 or a multiple of the number of machines.
    """
    total = sum(counts)
    if window is None:
        return permutation(total, seed, epoch)
    generator = torch.Generator().manual_seed(mix(seed, epoch, 0x5B))
    numbers = torch.arange(total).split(list(counts))
    shards = torch.randperm(len(numbers), generator=generator)
    stream = torch.cat([numbers[s] for s in shards.tolist()])
    lane, row = _lanes(total, lanes)
    stretch = row // (window * max(counts))
    within = torch.argsort(torch.rand(total, generator=generator))
    group = (lane * total + stretch)[within]
    mixed = stream[within[torch.argsort(group, stable=True)]]
    order = torch.empty_like(stream)
    order[row * lanes + lane] = mixed
    return order


def _lanes(total: int, lanes: int) -> tuple[Tensor, Tensor]:
    """Lane and position in it of each sample of a stream that is cut into equal lanes.

    The first ``total % lanes`` lanes hold one more, so that alternating them leaves no gap.
    """
    share, longer = divmod(total, lanes)
    lengths = torch.tensor([share + (i < longer) for i in range(lanes)])
    lane = torch.repeat_interleave(torch.arange(lanes), lengths)
    row = torch.arange(total) - (lengths.cumsum(0) - lengths)[lane]
    return lane, row
