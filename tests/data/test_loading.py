"""Keyed loading: order, resume, ranks, unreadable samples."""

import os
import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from visionlab.data import ArrayImages, ImageFolder, KeyedLoader
from visionlab.data.loading import KeyedSampler, UnreadableSampleError, check_workers


class Noisy(Dataset):
    """Draws from every global generator, as augmentations do."""

    def __len__(self):
        return 10

    def __getitem__(self, index):
        import random

        draws = [float(torch.rand(())), float(np.random.rand()), random.random()]  # noqa: NPY002
        return {"image": torch.tensor(draws), "label": index}


def arrays(n=10):
    return ArrayImages(np.arange(n, dtype=np.uint8)[:, None, None] + np.zeros((1, 2, 2), np.uint8),
                       np.arange(n))  # fmt: skip


def drawn(loader):
    return torch.cat([b["image"] for b in loader])


def test_order_and_augmentation_depend_on_seed_and_epoch_alone():
    first, again = (KeyedLoader(Noisy(), 4, seed=3, shuffle=True) for _ in range(2))
    torch.manual_seed(7)
    a = drawn(first)
    torch.manual_seed(8)
    assert torch.equal(a, drawn(again))
    again.sampler.set_epoch(1)
    assert not torch.equal(a, drawn(again))
    assert not torch.equal(a, drawn(KeyedLoader(Noisy(), 4, seed=4, shuffle=True)))


def test_global_generators_are_untouched():
    before = torch.get_rng_state()
    drawn(KeyedLoader(Noisy(), 4))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_number_of_workers_changes_nothing():
    alone, helped = (KeyedLoader(Noisy(), 4, shuffle=True, num_workers=n) for n in (0, 2))
    assert torch.equal(drawn(alone), drawn(helped))


def test_resumes_in_the_middle_of_an_epoch():
    whole = KeyedLoader(Noisy(), 3, seed=1, shuffle=True)
    batches = list(whole)
    stopped = KeyedLoader(Noisy(), 3, seed=1, shuffle=True)
    iterator = iter(stopped)
    next(iterator), next(iterator)
    again = KeyedLoader(Noisy(), 3, seed=1, shuffle=True)
    again.load_state_dict(stopped.state_dict())
    rest = list(again)
    assert len(rest) == 2
    assert all(torch.equal(a["image"], b["image"]) for a, b in zip(batches[2:], rest))
    assert len(list(again)) == 4  # the epoch after it is whole again


def test_state_at_the_end_of_an_epoch_starts_the_next_one():
    loader = KeyedLoader(arrays(), 5)
    list(loader)
    again = KeyedLoader(arrays(), 5)
    again.load_state_dict(loader.state_dict())
    assert len(list(again)) == 2


@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_ranks_share_without_repeats(monkeypatch, drop_last, world):
    from visionlab.data import loading

    seen, counts = [], []
    for rank in range(world):
        monkeypatch.setattr(loading, "rank_and_world", lambda rank=rank: (rank, world))
        loader = KeyedLoader(arrays(23), 3, shuffle=True, drop_last=drop_last)
        indices = [int(i) for batch in loader for i in batch["index"]]
        counts.append(len(loader))
        seen += indices
    assert len(set(counts)) == 1
    assert len(seen) == len(set(seen))
    assert len(seen) == (23 // (3 * world) * 3 * world if drop_last else 23)


def test_whole_batches_of_arrays():
    batch = next(iter(KeyedLoader(arrays(), 4)))
    assert batch["image"].dtype == torch.uint8
    assert batch["image"].shape == (4, 1, 2, 2)
    assert batch["index"].tolist() == [0, 1, 2, 3]


def test_sizes_are_checked():
    with pytest.raises(ValueError, match="empty"):
        KeyedLoader([], 4)
    with pytest.raises(ValueError, match="at least 1"):
        KeyedLoader(arrays(), 0)
    with pytest.raises(ValueError, match="fewer than one batch of 64"):
        KeyedLoader(arrays(), 64, drop_last=True)


def test_more_workers_than_cores():
    cores = check_workers("auto")
    with pytest.raises(
        ValueError, match=rf"may use {cores} cores; set data.num_workers to 0\.\.{cores}"
    ):
        check_workers(cores + 1)
    with pytest.raises(ValueError, match="num_workers is -1"):
        check_workers(-1)


def test_one_corrupt_image_is_named_counted_and_replaced(folder, caplog):
    bad = folder / "class0" / "4.png"
    bad.write_bytes(bad.read_bytes()[:60])
    loader = KeyedLoader(ImageFolder(folder), 6)
    batches = list(loader)
    assert sum(len(b["label"]) for b in batches) == 12
    assert list(loader.unreadable) == [str(bad)]
    assert "4.png" in caplog.text


def test_many_corrupt_images_stop_the_run(folder):
    for path in folder.glob("class1/*.png"):
        path.write_bytes(b"nonsense")
    with pytest.raises(RuntimeError, match=r"unreadable samples.*unreadable_limit"):
        list(KeyedLoader(ImageFolder(folder), 12, unreadable_limit=3))


def test_nothing_but_corrupt_images(folder):
    for path in folder.glob("*/*.png"):
        path.write_bytes(b"")
    with pytest.raises(RuntimeError, match="unreadable samples in a row"):
        list(KeyedLoader(ImageFolder(folder), 2, unreadable_limit=3))


def test_unreadable_error_is_for_datasets_to_raise():
    assert issubclass(UnreadableSampleError, ValueError)
    error = UnreadableSampleError("a: b/1.png", OSError("cut off: early"))
    for one in (error, pickle.loads(pickle.dumps(error))):  # as workers hand them on
        assert (one.name, one.cause) == ("a: b/1.png", "cut off: early")
        assert str(one) == "a: b/1.png: cut off: early"


def test_the_sampler_has_no_order_of_its_own():
    sampler = KeyedSampler(3, 2, seed=0, shuffle=True, drop_last=False,
                           shuffled=lambda seed, epoch: torch.tensor([2, 0, 1]))  # fmt: skip
    assert list(sampler) == [[(0, 2), (0, 0)], [(0, 1)]]
