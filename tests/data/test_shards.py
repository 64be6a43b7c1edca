"""Packed sets as data sets: the same samples, order, keys and resume as unpacked; damage."""

import json
import os
import pickle
import tarfile

import fsspec
import numpy as np
import pytest
import torch
from shard_sets import COUNT, PER_SHARD, copy_of, flip, make_folder, make_packed, no_sync

from visionlab import config as configs
from visionlab.data import (
    DATASETS,
    CocoDetection,
    CocoShards,
    ImageFolder,
    ImageShards,
    KeyedLoader,
)
from visionlab.data.loading import DamagedDataError, KeyedSampler, permutation
from visionlab.data.shards.order import shuffled_order
from visionlab.data.shards.packing import pack
from visionlab.data.shards.sources import coco

__all__ = ["no_sync"]  # a fixture for all tests here
CORES = len(os.sched_getaffinity(0))


def crop(image):
    """A random crop and flip: draws from the keyed generator."""
    y, x, flipped = (int(torch.randint(0, n, ())) for n in (8, 12, 2))
    image = image[:, y : y + 12, x : x + 12]
    return image.flip(-1) if flipped else image


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def packed(folder, tmp_path_factory):
    return make_packed(folder, tmp_path_factory.mktemp("packed") / "set")


@pytest.fixture(scope="module")
def listed(folder, tmp_path_factory):
    return make_packed(folder, tmp_path_factory.mktemp("listed") / "set", seed=None)


def indices(loader):
    return [int(i) for batch in loader for i in batch["index"]]


def equal(a, b):
    return all(torch.equal(a[k], b[k]) for k in ("image", "label", "index"))


# ---------------------------------------------------------------- the same as unpacked


@pytest.mark.parametrize("workers", [0, 2])
def test_a_set_packed_as_listed_gives_the_batches_of_its_folder(folder, listed, workers):
    if workers > CORES:
        pytest.skip("needs two cores")
    arguments = {"seed": 3, "shuffle": True}
    unpacked = KeyedLoader(ImageFolder(folder, transform=crop), 8, **arguments)
    shards = KeyedLoader(
        ImageShards(str(listed), transform=crop), 8, num_workers=workers, **arguments
    )
    for epoch in (0, 1):
        unpacked.sampler.set_epoch(epoch)
        shards.sampler.set_epoch(epoch)
        pairs = list(zip(unpacked, shards, strict=True))
        assert len(pairs) == 6
        assert all(equal(a, b) for a, b in pairs)


def test_a_shuffled_packing_holds_every_picture_once(folder, packed):
    unpacked, shards = ImageFolder(folder), ImageShards(str(packed))
    assert shards.classes == unpacked.classes
    there = {json.loads(shards.shards.meta(i))["path"]: i for i in range(COUNT)}
    assert len(there) == COUNT
    assert list(there) != sorted(there)
    for i, (path, label) in enumerate(unpacked.samples):
        sample = shards[there[os.path.relpath(path, folder)]]
        assert torch.equal(sample["image"], unpacked[i]["image"])
        assert int(sample["label"]) == label


def test_shards_are_tars_that_any_reader_opens(packed):
    labels, number = ImageShards(str(packed)), 0
    for path in sorted(packed.glob("*.tar")):
        with tarfile.open(path) as tar:
            members = tar.getmembers()
            for image, meta in zip(members[::2], members[1::2], strict=True):
                assert (
                    image.name.partition(".")[0] == meta.name.partition(".")[0] == f"{number:08d}"
                )
                assert meta.name.endswith(".json")
                assert (
                    json.loads(tar.extractfile(meta).read())["label"] == labels.shards[number].label
                )
                assert tar.extractfile(image).read() == labels.shards[number].image
                number += 1
    assert number == COUNT


def test_the_config_builds_it(packed):
    node = {"name": "images", "batch_size": 4, "num_workers": 0, "datasets": {"train": {
        "name": "image_shards", "root": str(packed), "window": 2,
        "transform": {"name": "pretraining", "size": 16}}}}  # fmt: skip
    batch = next(iter(configs.build(node, key="data").train_dataloader()))
    assert batch["image"].shape == (4, 3, 16, 16)
    assert set(batch) == {"image", "label", "index"}
    assert {"image_shards", "coco_shards"} <= set(DATASETS.names())


# ---------------------------------------------------------------- order


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


# ---------------------------------------------------------------- resume


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


def test_the_sampler_has_no_order_of_its_own():
    sampler = KeyedSampler(3, 2, seed=0, shuffle=True, drop_last=False,
                           shuffled=lambda seed, epoch: torch.tensor([2, 0, 1]))  # fmt: skip
    assert list(sampler) == [[(0, 2), (0, 0)], [(0, 1)]]


def test_survives_pickling(packed):
    dataset = pickle.loads(pickle.dumps(ImageShards(str(packed))))
    assert torch.equal(dataset[3]["image"], ImageShards(str(packed))[3]["image"])


# ---------------------------------------------------------------- damage


def message_of(make, *, workers=0):
    """What a run over a damaged set says; it must say it in one line."""
    with pytest.raises((DamagedDataError, ValueError, FileNotFoundError, RuntimeError)) as caught:
        list(KeyedLoader(ImageShards(str(make)), 5, num_workers=workers, unreadable_limit=0))
    text = str(caught.value)
    assert "\n" not in text
    assert "Traceback" not in text
    return text


@pytest.mark.parametrize("workers", [0, 2])
def test_a_missing_or_truncated_shard_is_one_clear_error(packed, tmp_path, workers):
    if workers > CORES:
        pytest.skip("needs two cores")
    damaged = copy_of(packed, tmp_path / "set")
    path = damaged / "shard-00002.tar"
    data = path.read_bytes()
    for kept in (len(data) // 2,) if workers else (0, 511, len(data) - 1):
        path.write_bytes(data[:kept])
        text = message_of(damaged, workers=workers)
        assert f"{path} has {kept} bytes" in text
        assert "truncated" in text
        assert "tools/pack.py" in text
    path.unlink()
    assert f"{path} is missing" in message_of(damaged)


def test_a_shard_that_shrinks_while_it_is_read(packed, tmp_path):
    damaged = copy_of(packed, tmp_path / "set")
    dataset = ImageShards(str(damaged))
    assert dataset[0]["image"].shape == (3, 20, 24)
    os.truncate(damaged / "shard-00000.tar", 1000)
    with pytest.raises(DamagedDataError, match="ends before sample 6: it was truncated while"):
        dataset[6]


def test_a_changed_picture_is_named_counted_and_replaced(packed, tmp_path, caplog):
    damaged = copy_of(packed, tmp_path / "set")
    row = ImageShards(str(packed)).shards.row(9)
    flip(damaged / "shard-00001.tar", int(row["image"]) + 200)
    loader = KeyedLoader(ImageShards(str(damaged)), 8)
    seen = indices(loader)
    assert len(seen) == COUNT
    assert 9 not in seen
    assert list(loader.unreadable) == [f"{damaged}/shard-00001.tar/00000009"]
    assert "changed since packing" in caplog.text
    assert "1 unreadable samples, more than the limit of 0" in message_of(damaged)


def test_a_picture_that_was_never_one_is_named_and_counted(tmp_path):
    folder = make_folder(tmp_path / "pictures", 12)
    (folder / "class1" / "001.JPEG").write_bytes(b"no picture")
    loader = KeyedLoader(ImageShards(str(make_packed(folder, tmp_path / "set", seed=None))), 6)
    assert len(indices(loader)) == 12
    assert [name.rpartition("/")[2] for name in loader.unreadable] == ["00000004"]


@pytest.mark.parametrize("seed", range(24))
def test_fuzzed_sets_give_the_right_pictures_or_say_what_is_wrong(packed, tmp_path, seed):
    """A bit turned, a tail cut or a file gone, anywhere: never a wrong picture, label or count."""
    rng = np.random.default_rng(seed)
    damaged = copy_of(packed, tmp_path / "set")
    path = sorted(damaged.iterdir())[seed % 8]
    how = ("flip", "cut", "gone")[seed // 8]
    if how == "flip":
        flip(path, int(rng.integers(path.stat().st_size)), int(rng.integers(8)))
    elif how == "cut":
        os.truncate(path, int(rng.integers(path.stat().st_size)))
    else:
        path.unlink()
    right = ImageShards(str(packed))
    try:
        loader = KeyedLoader(ImageShards(str(damaged)), 5)
        batches = list(loader)
    except (DamagedDataError, ValueError, FileNotFoundError) as error:
        assert path.name in str(error)  # noqa: PT017
        return
    assert how == "flip"
    for batch in batches:
        for i, image, label in zip(batch["index"].tolist(), batch["image"], batch["label"]):
            assert torch.equal(image, right[i]["image"])
            assert label == right[i]["label"]
    assert sum(len(b["index"]) for b in batches) == COUNT


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


def test_folders_and_arguments_that_do_not_fit(packed, folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no .*index\.json; give a folder that tools/pack"):
        ImageShards(str(folder))
    with pytest.raises(ValueError, match="window=0, lanes=8: expected 1 or more"):
        ImageShards(str(packed), window=0)
    with pytest.raises(ValueError, match="on this machine's disks; leave out 'cache'"):
        ImageShards(str(packed), cache=str(tmp_path))
    with pytest.raises(
        ValueError, match=r"Protocol not known: nonsense; give a folder or an fsspec"
    ):
        ImageShards("nonsense://bucket/set")
    one = make_packed(make_folder(tmp_path / "one", 4, classes=1), tmp_path / "packed")
    with pytest.raises(ValueError, match="holds 1 class; a classifier needs two"):
        ImageShards(str(one))
    assert len(ImageShards(str(one), labelled=False)) == 4
    with pytest.raises(IndexError, match="no sample 4 in"):
        ImageShards(str(one), labelled=False).shards[4]


# ---------------------------------------------------------------- COCO


@pytest.fixture
def coco_set(tmp_path):
    folder = make_folder(tmp_path / "pictures", 5, classes=1) / "class0"
    names = sorted(p.name for p in folder.iterdir())
    objects = [
        {"id": i, "image_id": 10 + i % 4, "category_id": 3 + 4 * (i % 2), "iscrowd": int(i == 5),
         "bbox": [i, 2, 6, 5], "area": 30, "segmentation": [[i, 2, i + 6, 2, i + 6, 7, i, 7]]}
        for i in range(9)
    ]  # fmt: skip
    text = {"images": [{"id": 10 + i, "file_name": n, "height": 20, "width": 24}
                       for i, n in enumerate(names)],
            "annotations": objects,
            "categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}]}  # fmt: skip
    (tmp_path / "instances.json").write_text(json.dumps(text))
    return folder, tmp_path / "instances.json"


def test_coco_shards_give_the_samples_of_the_unpacked_set(coco_set, tmp_path):
    folder, annotations = coco_set
    pack(coco(*coco_set), tmp_path / "set", samples_per_shard=2, seed=None)
    unpacked = CocoDetection(str(folder), str(annotations), masks=True)
    shards = CocoShards(str(tmp_path / "set"), masks=True)
    assert shards.classes == unpacked.classes == ["cat", "dog"]
    assert len(shards) == len(unpacked) == 5
    for a, b in zip((unpacked[i] for i in range(5)), (shards[i] for i in range(5))):
        assert a.keys() == b.keys()
        assert all(torch.equal(a[k], b[k]) for k in a)
    with pytest.raises(ValueError, match="reads classification; use 'coco_shards'"):
        ImageShards(str(tmp_path / "set"))


def test_coco_shards_keep_their_cache_within_bounds(coco_set, tmp_path):
    pack(coco(*coco_set), tmp_path / "set", samples_per_shard=2)
    remote = fsspec.filesystem("memory")
    remote.put(str(tmp_path / "set"), "/coco/set", recursive=True)
    size = sum(p.stat().st_size for p in (tmp_path / "set").glob("*.tar"))
    place = {"root": "memory://coco/set", "cache": str(tmp_path / "cache")}
    assert len(CocoShards(**place, cache_gb=2 * size / 1e9)) == 5
    with pytest.raises(ValueError, match=r"cannot hold the .* GB .* in no order: .* Raise it"):
        CocoShards(**place, cache_gb=0.5 * size / 1e9)


def test_coco_shards_feed_the_multi_task_mixture(coco_set, tmp_path):
    pack(coco(*coco_set), tmp_path / "set", samples_per_shard=2)
    task = {"name": "task_data", "batch_size": 4, "image_size": 32, "datasets": {
        "train": {"name": "coco_shards", "root": str(tmp_path / "set")}},
        "transforms": {"train": {"name": "fit_inside", "size": 32}}}  # fmt: skip
    data = configs.build({"name": "task_mixture", "datasets": {"boxes": task}}, key="data")
    (pick,) = next(iter(data.train_dataloader()))
    assert pick["image"].shape == (4, 3, 32, 32)
    assert len(pick["boxes"]) == 4


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_shard_stops_the_mixture_with_one_line(coco_set, tmp_path, workers):
    pack(coco(*coco_set), tmp_path / "set", samples_per_shard=2)
    task = {"name": "task_data", "batch_size": 4, "image_size": 32, "datasets": {
        "train": {"name": "coco_shards", "root": str(tmp_path / "set")}}}  # fmt: skip
    node = {"name": "task_mixture", "num_workers": workers, "datasets": {"boxes": task}}
    data = configs.build(node, key="data")
    (tmp_path / "set" / "shard-00001.tar").unlink()
    with pytest.raises(DamagedDataError) as caught:
        list(data.train_dataloader())
    assert str(caught.value).startswith(f"{tmp_path}/set/shard-00001.tar is missing")
    assert "\n" not in str(caught.value)


def test_shards_hold_as_many_samples_as_asked(packed):
    parts = ImageShards(str(packed)).shards.index.shards
    assert [p.count for p in parts] == [PER_SHARD] * 5 + [COUNT - 5 * PER_SHARD]
