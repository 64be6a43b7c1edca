"""Reading a damaged set: the right pictures, or what is wrong in one line."""

import os
import pickle

import numpy as np
import pytest
import torch
from shard_sets import COUNT, copy_of, flip, make_folder, make_packed

from visionlab.data import ImageShards, KeyedLoader
from visionlab.data.loading import DamagedDataError

CORES = len(os.sched_getaffinity(0))


def indices(loader):
    return [int(i) for batch in loader for i in batch["index"]]


def message_of(make, *, workers=0):
    """What a run over a damaged set says; it must say it in one line."""
    with pytest.raises((DamagedDataError, ValueError, FileNotFoundError, RuntimeError)) as caught:
        list(KeyedLoader(ImageShards(str(make)), 5, num_workers=workers, unreadable_limit=0))
    text = str(caught.value)
    assert "\n" not in text
    assert "Traceback" not in text
    return text


def test_survives_pickling(packed):
    dataset = pickle.loads(pickle.dumps(ImageShards(str(packed))))
    assert torch.equal(dataset[3]["image"], ImageShards(str(packed))[3]["image"])


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
