"""Every task on two processes (gloo) against one with the same global batch, DDP and FSDP2."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import visionlab
from tests.ranks import new_meeting, on_ranks
from tests.tasks.multitask_fixture import config as multitask_config
from tests.tasks.multitask_fixture import write_archives
from visionlab import checkpoint, sharded_checkpoint
from visionlab.backbones.nonnegative import NonNegativeWeight
from visionlab.checkpoint import CheckpointError
from visionlab.tasks import training
from visionlab.tasks.curves import read_curves

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.filterwarnings("ignore")]

TRAIN, HELD_OUT = 24, 13  # 13: one rank gets seven, the other six; k-NN and top-1 see 13

BACKBONE = {"name": "vit", "img_size": 8, "patch_size": 2, "in_chans": 1, "embed_dim": 12,
            "depth": 2}  # fmt: skip
CLASSIFIER = {"name": "image_classifier", "num_classes": 4, "backbone": BACKBONE}
TASKS: dict[str, dict[str, Any]] = {
    "pretraining": {
        "name": "masked_pretraining", "mask_key": "sample", "picture_every_epochs": 2,
        "model": {"name": "masked_autoencoder", "backbone": BACKBONE, "mask": {"name": "green"},
                  "decoder": {"name": "light", "depth": 1, "dim": 16, "heads": 2}},
        "optimizer": {"name": "adamw", "lr": 0.01, "warmup_epochs": 0.5},
    },
    "finetuning": {
        "name": "finetuning", "model": CLASSIFIER, "mixup": 0.0, "cutmix": 0.0,
        "random_erasing": 0.0, "optimizer": {"name": "adamw", "lr": 0.01, "layer_decay": 0.9},
    },
    "probing": {
        "name": "linear_probing", "model": {**CLASSIFIER, "norm": "batch", "freeze_backbone": True},
    },
    "matching": {
        "name": "proximal_matching", "noise_key": "sample",
        "optimizer": {"name": "adam", "lr": 0.05},
        "model": {"name": "learned_proximal_network", "hidden": 8, "strides": [1, 2],
                  "noise_level": 0.1},
    },
}  # fmt: skip
# what is run on two ranks: name -> task, keys of the trainer
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "pretraining ddp": ("pretraining", {}),
    "pretraining fsdp2": ("pretraining", {"strategy": "fsdp2"}),
    "pretraining fsdp2_sharded": ("pretraining", {"strategy": "fsdp2_sharded"}),
    "pretraining keys": (
        "pretraining",
        {"strategy": "fsdp2", "activation_checkpointing": True, "accumulate_grad_batches": 2,
         "gradient_clip_val": 0.5},
    ),
    "finetuning ddp": ("finetuning", {"activation_checkpointing": True}),
    "finetuning fsdp2": ("finetuning", {"strategy": "fsdp2"}),
    "probing ddp": ("probing", {}),
    "probing fsdp2": ("probing", {"strategy": "fsdp2"}),
    "matching ddp": ("matching", {}),
    "matching fsdp2_sharded": ("matching", {"strategy": "fsdp2_sharded"}),
    "multitask ddp": ("multitask", {}),
    "multitask fsdp2": ("multitask", {"strategy": "fsdp2"}),
}  # fmt: skip


JUDGED = ("pretraining", "pretraining ddp", "pretraining fsdp2_sharded")


def config(folder: Path, name: str, task: str, *, ranks: int, **trainer: Any) -> dict[str, Any]:
    """A run of two epochs of three steps of eight images (multi-task: of two steps)."""
    common = {"accelerator": "cpu", "devices": ranks, "max_epochs": 2, "log_every_n_steps": 1,
              "num_sanity_val_steps": 0, "enable_model_summary": False,
              "enable_progress_bar": False}  # fmt: skip
    if task == "multitask":
        made = multitask_config(folder, folder / name)
        made["data"]["steps_per_epoch"] = 2
        made["task"]["optimizer"] = {"name": "sgd", "lr": 0.05}
        for data in made["data"]["datasets"].values():
            data["datasets"]["val"] = {**data["datasets"]["val"], "limit": 7}
        return {**made, "trainer": common | trainer}
    split = {
        s: {"name": "array_images", "path": str(folder / f"{s}.npz")} for s in ("train", "val")
    }
    unit = task == "matching"
    made = {
        "seed": 3,
        "output": str(folder / name),
        "task": TASKS[task],
        "data": {"name": "images", "datasets": split, "batch_size": 8 // ranks,
                 "mean": [0.0 if unit else 0.5], "std": [1.0 if unit else 0.25]},
        "trainer": common | trainer,
    }  # fmt: skip
    if name in JUDGED:
        made["evaluations"] = [{"name": "frozen_features", "k": 3, "split": "val"}]
    return copy.deepcopy(made)


def write_images(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for split, count in (("train", TRAIN), ("val", HELD_OUT)):
        labels = np.arange(count) % 4
        pixels = rng.integers(0, 120, (count, 8, 8)) + labels[:, None, None] * 40
        np.savez(folder / f"{split}.npz", images=pixels.astype(np.uint8), labels=labels)


def train_all(rank: int, folder: Path) -> None:
    for name, (task, trainer) in RUNS.items():
        new_meeting()
        training.run(config(folder, name, task, ranks=2, **trainer))


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """Folder of all runs, those of one process under the name of their task."""
    folder = tmp_path_factory.mktemp("ranks")
    write_images(folder)
    write_archives(folder)
    for task in (*TASKS, "multitask"):
        training.run(config(folder, task, task, ranks=1))
    keys = {"accumulate_grad_batches": 2, "gradient_clip_val": 0.5}
    training.run(config(folder, "pretraining keys alone", "pretraining", ranks=1, **keys))
    on_ranks(train_all, folder, meetings=len(RUNS))
    return folder


def figures(folder: Path) -> dict[str, list[tuple[int, float]]]:
    curves = read_curves(folder / "metrics.csv")
    return {k: v for k, v in curves.items() if k != "val/cpu_minutes"}


@pytest.mark.parametrize("name", RUNS)
def test_two_ranks_train_and_score_as_one(runs, name):
    task, _ = RUNS[name]
    one = figures(runs / (f"{name} alone" if name == "pretraining keys" else task))
    two = figures(runs / name)
    assert one.keys() == two.keys()
    assert any(k.startswith("val/") for k in one)  # over 13 samples, or 7: none counted twice
    for metric, values in one.items():
        assert [s for s, _ in values] == [s for s, _ in two[metric]]
        assert [v for _, v in two[metric]] == pytest.approx([v for _, v in values], abs=1e-4), (
            metric
        )
    first, *_, last = [v for _, v in one["train/loss"]]
    assert abs(last - first) > 1e-3  # the comparison is about a run that learnt something


@pytest.mark.parametrize("name", JUDGED[1:])
def test_frozen_features_are_judged_on_all_images(runs, name):
    one, two = (json.loads((runs / n / "results.json").read_text()) for n in ("pretraining", name))
    (row, trained), (expected, _) = two["Frozen encoder"], one["Frozen encoder"]
    assert row == expected
    assert (trained["train images"], trained["test images"]) == (TRAIN, HELD_OUT)
    pictures = {p.name for p in (runs / name / "pictures").glob("*.png")}
    assert pictures == {"reconstruction_0002.png"}


@pytest.mark.parametrize("name", [n for n in RUNS if "keys" not in n])
def test_checkpoint_of_two_ranks_is_that_of_one(runs, name):
    task, _ = RUNS[name]
    one, two = (checkpoint.read(runs / n / "last.ckpt") for n in (task, name))
    for key, value in one["optimizer_states"][0]["state"].items():
        other = two["optimizer_states"][0]["state"][key]
        for part in value:
            torch.testing.assert_close(other[part], value[part], rtol=0, atol=1e-4)
    groups = [[g["params"] for g in c["optimizer_states"][0]["param_groups"]] for c in (one, two)]
    assert groups[0] == groups[1]
    model, other = (visionlab.load(runs / n / "last.ckpt") for n in (task, name))
    assert model.state_dict().keys() == other.state_dict().keys()
    if task in ("probing", "multitask"):  # SGD; Adam makes steps of rounding errors
        for key, value in model.state_dict().items():
            torch.testing.assert_close(other.state_dict()[key], value, rtol=0, atol=1e-4)


def test_projection_acts_on_sharded_weights(runs):
    model = visionlab.load(runs / "matching fsdp2_sharded" / "last.ckpt")
    weights = [m.weight for m in model.modules() if isinstance(m, NonNegativeWeight)]
    assert all((w >= 0).all() for w in weights)
    assert any((w == 0).any() for w in weights)  # the projection had work to do


# ---------------------------------------------------------------- one file from shards


def test_shards_become_one_file(runs, tmp_path):
    source = runs / "pretraining fsdp2_sharded" / "last.ckpt"
    assert "shards" in checkpoint.read(source, tensors=False)
    assert source.stat().st_size < 60_000  # no weights in it
    whole = sharded_checkpoint.consolidate(source, tmp_path / "whole.ckpt")
    loaded, again = visionlab.load(source), visionlab.load(whole)
    for key, value in loaded.state_dict().items():
        assert torch.equal(value, again.state_dict()[key])
    with pytest.raises(FileExistsError, match="choose another name"):
        sharded_checkpoint.consolidate(source, whole)


def shards_of(folder: Path) -> list[Path]:
    record = checkpoint.read(folder / "last.ckpt", tensors=False)["shards"]
    return [folder / record["folder"] / name for name in sorted(record["files"])]


@pytest.mark.parametrize("damage", ["missing", "truncated", "flipped", "folder"])
def test_damaged_shards_are_named(runs, tmp_path, damage):
    import shutil

    folder = tmp_path / "copy"
    shutil.copytree(runs / "matching fsdp2_sharded", folder)
    shard = shards_of(folder)[1]
    content = bytearray(shard.read_bytes())
    if damage == "missing":
        shard.unlink()
    elif damage == "truncated":
        shard.write_bytes(content[:-7])
    elif damage == "flipped":
        content[-3] ^= 4
        shard.write_bytes(content)
    else:
        shutil.rmtree(shard.parent)
    said = "missing" if damage in ("missing", "folder") else "truncated or damaged"
    with pytest.raises(CheckpointError, match=f"{said}.*copy the file together with its folder"):
        visionlab.load(folder / "last.ckpt")


@pytest.mark.parametrize("name", ["../elsewhere", "/etc", "..", ""])
def test_shards_lie_beside_their_file(runs, tmp_path, name):
    content = checkpoint.read(runs / "matching fsdp2_sharded" / "last.ckpt", tensors=False)
    content["shards"]["folder"] = name
    checkpoint.save(content, tmp_path / "last.ckpt")
    with pytest.raises(CheckpointError, match="names shards outside its folder"):
        visionlab.load(tmp_path / "last.ckpt")
