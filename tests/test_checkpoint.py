"""The model again from its file alone; strangers and other models are refused."""

import errno

import pytest
import torch

import visionlab
from visionlab import checkpoint
from visionlab.backbones import create_backbone
from visionlab.checkpoint import CheckpointError
from visionlab.config import ConfigError
from visionlab.heads import ImageClassifier

CONFIG = {
    "name": "image_classifier",
    "num_classes": 3,
    "backbone": {"name": "vit", "img_size": [8, 12], "patch_size": 4, "embed_dim": 6, "depth": 2},
}


@pytest.fixture
def model():
    torch.manual_seed(0)
    node = {k: v for k, v in CONFIG["backbone"].items() if k != "name"}
    return ImageClassifier(create_backbone("vit", **node), 3)


@pytest.fixture
def saved(model, tmp_path):
    checkpoint.save_model(model, tmp_path / "m.ckpt", CONFIG)
    return tmp_path / "m.ckpt"


def test_load_rebuilds_the_model_from_the_file_alone(model, saved):
    again = visionlab.load(saved)
    images = torch.randn(2, 3, 8, 12)
    assert not again.training
    assert torch.equal(again(images), model.eval()(images))


def test_file_is_plain(saved):
    assert torch.load(saved, weights_only=True)["visionlab"]["config"]["model"] == CONFIG


def test_rebuilding_reads_no_other_weights(model, tmp_path):
    config = CONFIG | {"backbone": CONFIG["backbone"] | {"checkpoint_path": "/nowhere.pth"}}
    checkpoint.save_model(model, tmp_path / "m.ckpt", config)
    visionlab.load(tmp_path / "m.ckpt")


def test_a_strangers_target_runs_no_code_unless_trusted(model, tmp_path):
    config = {"_target_": "pathlib.Path.touch", "self": str(tmp_path / "pwned")}
    checkpoint.save_model(model, tmp_path / "m.ckpt", config)
    with pytest.raises(ConfigError, match="refuses to call 'pathlib"):
        visionlab.load(tmp_path / "m.ckpt")
    assert not (tmp_path / "pwned").exists()


def test_hostile_pickle_runs_no_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "pwned"), "w"))

    torch.save({"state_dict": Evil()}, tmp_path / "evil.ckpt")
    with pytest.raises(CheckpointError, match="other than plain data"):
        visionlab.load(tmp_path / "evil.ckpt")
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_truncated_file(saved, share):
    data = saved.read_bytes()
    saved.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(CheckpointError, match="truncated or no checkpoint"):
        visionlab.load(saved)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        visionlab.load(tmp_path / "no.ckpt")


def test_checkpoint_of_another_model_names_what_differs(model, tmp_path):
    config = CONFIG | {"num_classes": 4, "backbone": CONFIG["backbone"] | {"depth": 3}}
    checkpoint.save_model(model, tmp_path / "m.ckpt", config)
    with pytest.raises(CheckpointError) as error:
        visionlab.load(tmp_path / "m.ckpt")
    assert "missing backbone.blocks.2" in str(error.value)
    assert "head.weight is (3, 6) instead of (4, 6)" in str(error.value)


def test_foreign_and_future_files_are_refused(tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "foreign.ckpt")
    with pytest.raises(CheckpointError, match="carries no config"):
        visionlab.load(tmp_path / "foreign.ckpt")
    torch.save({"visionlab": {"format": 99, "config": {}}}, tmp_path / "future.ckpt")
    with pytest.raises(CheckpointError, match="upgrade"):
        visionlab.load(tmp_path / "future.ckpt")


def test_full_disk_leaves_the_old_file_intact(model, saved, monkeypatch):
    before = saved.read_bytes()

    def full(payload, file):
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="intact"):
        checkpoint.save_model(model, saved, CONFIG)
    assert saved.read_bytes() == before
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]


def test_only_plain_values_enter_a_checkpoint(tmp_path):
    import numpy as np

    plain = checkpoint.plain({"a": tmp_path, "b": np.float64(1.5), "c": (1, None), 3: True})
    assert plain == {"a": str(tmp_path), "b": 1.5, "c": [1, None], "3": True}
    with pytest.raises(TypeError, match="no plain form"):
        checkpoint.plain({"a": object()})
