"""Packed sets as data sets: the same samples as unpacked, from a config, in a mixture."""

import json
import os

import fsspec
import pytest
import torch
from shard_sets import COUNT, crop, make_folder, make_packed

from visionlab import config as configs
from visionlab.data import (
    DATASETS,
    CocoDetection,
    CocoShards,
    ImageFolder,
    ImageShards,
    KeyedLoader,
)
from visionlab.data.loading import DamagedDataError
from visionlab.data.shards.packing import pack
from visionlab.data.shards.sources import coco

CORES = len(os.sched_getaffinity(0))


def equal(a, b):
    return all(torch.equal(a[k], b[k]) for k in ("image", "label", "index"))


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


def test_the_config_builds_it(packed):
    node = {"name": "images", "batch_size": 4, "num_workers": 0, "datasets": {"train": {
        "name": "image_shards", "root": str(packed), "window": 2,
        "transform": {"name": "pretraining", "size": 16}}}}  # fmt: skip
    batch = next(iter(configs.build(node, key="data").train_dataloader()))
    assert batch["image"].shape == (4, 3, 16, 16)
    assert set(batch) == {"image", "label", "index"}
    assert {"image_shards", "coco_shards"} <= set(DATASETS.names())


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
