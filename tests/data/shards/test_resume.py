"""Ranks share a packed set, and a stopped epoch goes on at the next unseen sample."""

import os

import pytest
import torch
from shard_sets import COUNT, crop

from visionlab.data import ImageShards, KeyedLoader

CORES = len(os.sched_getaffinity(0))


def indices(loader):
    return [int(i) for batch in loader for i in batch["index"]]


def equal(a, b):
    return all(torch.equal(a[k], b[k]) for k in ("image", "label", "index"))


@pytest.mark.parametrize("window", [None, 2])
@pytest.mark.parametrize("drop_last", [True, False])
def test_ranks_share_without_loss_or_repeat(packed, monkeypatch, window, drop_last):
    from visionlab.data import loading

    dataset = ImageShards(str(packed), window=window, lanes=2, transform=crop)
    for world in (1, 2, 3):
        seen = []
        for rank in range(world):
            monkeypatch.setattr(loading, "rank_and_world", lambda r=rank, w=world: (r, w))
            seen += indices(KeyedLoader(dataset, 4, shuffle=True, drop_last=drop_last))
        assert (
            len(seen)
            == len(set(seen))
            == (COUNT // (4 * world) * 4 * world if drop_last else COUNT)
        )


@pytest.mark.parametrize("window", [None, 2])
@pytest.mark.parametrize("stop", [0, 1, 3, 5])
def test_resumes_at_the_next_unseen_sample(packed, window, stop):
    def loader(workers=0):
        dataset = ImageShards(str(packed), window=window, transform=crop)
        return KeyedLoader(dataset, 8, seed=5, shuffle=True, num_workers=workers)

    whole = list(loader())
    stopped = loader()
    iterator = iter(stopped)
    for _ in range(stop):
        next(iterator)
    again = loader(workers=min(2, CORES) if stop == 3 else 0)
    again.load_state_dict(stopped.state_dict())
    rest = list(again)
    assert len(rest) == 6 - stop
    assert all(equal(a, b) for a, b in zip(whole[stop:], rest, strict=True))


@pytest.mark.parametrize(("ranks", "batch"), [(1, 8), (4, 2), (1, 4), (1, 2), (2, 2)])
def test_resumes_on_another_number_of_ranks(packed, monkeypatch, ranks, batch):
    """Stopped after 2 batches of 4 on 2 ranks; goes on with the rest, none lost, none twice."""
    from visionlab.data import loading

    dataset = ImageShards(str(packed), window=2, lanes=4, transform=crop)

    def run(rank, world, size, *, state=None, batches=None):
        monkeypatch.setattr(loading, "rank_and_world", lambda: (rank, world))
        loader = KeyedLoader(dataset, size, seed=5, shuffle=True, drop_last=True)
        if state is not None:
            loader.load_state_dict(state)
        samples = {}
        for number, b in enumerate(loader, 1):
            samples |= dict(zip(b["index"].tolist(), b["image"]))
            if number == batches:
                return samples, loader.state_dict()
        return samples

    whole = run(0, 1, 8)
    (first, state), (second, _) = run(0, 2, 4, batches=2), run(1, 2, 4, batches=2)
    rest = [run(rank, ranks, batch, state=state) for rank in range(ranks)]
    parts = [first, second, *rest]
    assert sum(map(len, parts)) == len(whole) == COUNT - 1
    joined = {i: image for part in parts for i, image in part.items()}
    assert joined.keys() == whole.keys()
    assert all(torch.equal(joined[i], whole[i]) for i in whole)


def test_batches_that_do_not_fit_the_checkpoint_are_refused(packed):
    loader = KeyedLoader(ImageShards(str(packed)), 6, shuffle=True)
    state = {"position": 2, "global_batch": 8, "ranks": 1, "length": 5}
    with pytest.raises(ValueError, match=r"batches of 8 on 1 ranks, this run has 6 on 1; choose"):
        loader.load_state_dict(state)
    with pytest.raises(ValueError, match=r"batches of 6 on 2 ranks"):  # uneven without drop_last
        loader.load_state_dict({**state, "global_batch": 6, "ranks": 2})
    loader.load_state_dict({**state, "position": 5})  # at the end of an epoch any will do
    assert len(indices(loader)) == COUNT
