import errno
import json
import os
from pathlib import Path

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


# ---------------------------------------------------------------- export


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("tokens", [{}, {"class_token": False}, {"reg_tokens": 2}])
def test_timm_loads_the_exported_encoder_strictly(tmp_path, suffix, tokens):
    import timm

    vit = create_backbone("vit", img_size=(8, 12), patch_size=4, embed_dim=6, depth=2, **tokens)
    path = tmp_path / f"encoder{suffix}"
    sidecar = checkpoint.export_encoder(vit, path, mean=(0.1, 0.2, 0.3), std=(1.0, 1.0, 1.0))
    card = json.loads(sidecar.read_text())
    assert card["mean"] == [0.1, 0.2, 0.3]
    again = timm.create_model(card["timm_name"], checkpoint_path=str(path),
                              **{k: tuple(v) if isinstance(v, list) else v
                                 for k, v in card["arguments"].items()})  # fmt: skip
    images = torch.randn(2, 3, 8, 12)
    assert torch.equal(again.eval()(images), vit.eval().forward_features(images))


def test_timm_model_is_exported_under_its_own_name(tmp_path):
    import timm

    vit = create_backbone("vit_tiny_patch16_224", depth=1)
    checkpoint.export_encoder(vit, tmp_path / "e.safetensors")
    again = timm.create_model("vit_tiny_patch16_224", depth=1, num_classes=0,
                              checkpoint_path=str(tmp_path / "e.safetensors"))  # fmt: skip
    assert torch.equal(again.pos_embed, vit.pos_embed)


def test_export_refuses_an_existing_file_and_other_endings(tmp_path):
    vit = create_backbone("vit", img_size=8, patch_size=4, embed_dim=6, depth=1)
    checkpoint.export_encoder(vit, tmp_path / "e.pth")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        checkpoint.export_encoder(vit, tmp_path / "e.pth")
    checkpoint.export_encoder(vit, tmp_path / "e.pth", overwrite=True)
    with pytest.raises(ValueError, match=r"\.safetensors or \.pth"):
        checkpoint.export_encoder(vit, tmp_path / "e.bin")
    with pytest.raises(TypeError, match="no timm backbone"):
        checkpoint.export_encoder(torch.nn.Linear(2, 2), tmp_path / "l.pth")


def test_export_replaces_nothing_that_timm_does_not_read_back(tmp_path, monkeypatch):
    vit = create_backbone("vit", img_size=8, patch_size=4, embed_dim=6, depth=1)
    path = tmp_path / "e.safetensors"
    checkpoint.export_encoder(vit, path)
    before = path.read_bytes()

    def other(card, path, state):
        raise CheckpointError("gives another tensor")

    monkeypatch.setattr(checkpoint, "_verify_export", other)
    with pytest.raises(CheckpointError, match="another tensor"):
        checkpoint.export_encoder(vit, path, overwrite=True)
    assert path.read_bytes() == before
    assert {p.name for p in tmp_path.iterdir()} == {"e.safetensors", "e.safetensors.json"}


def test_export_wants_a_mean_for_each_channel(tmp_path):
    vit = create_backbone("vit", img_size=8, patch_size=4, embed_dim=6, depth=1)
    with pytest.raises(ValueError, match="mean has 1 numbers, the encoder 3 channels"):
        checkpoint.export_encoder(vit, tmp_path / "e.pth", mean=(0.5,))


# ---------------------------------------------------------------- damage


def test_every_bit_flip_is_found_or_changes_nothing(saved):
    """torch.load alone would let nearly all of them through."""
    import random

    good, rng = checkpoint.read(saved)["state_dict"], random.Random(0)
    data, silent = saved.read_bytes(), 0
    for _ in range(60):
        changed = bytearray(data)
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        saved.write_bytes(changed)
        try:
            found = checkpoint.read(saved)["state_dict"]
        except CheckpointError:
            continue
        assert found.keys() == good.keys()
        assert all(torch.equal(v, good[k]) for k, v in found.items())
        silent += 1
    assert silent < 30


def test_a_damaged_checkpoint_names_the_one_before_it(model, tmp_path):
    last, earlier = tmp_path / "last.ckpt", tmp_path / checkpoint.PREVIOUS
    checkpoint.save({"state_dict": {}}, last)
    last.write_bytes(last.read_bytes()[:-30])
    with pytest.raises(CheckpointError, match="run again from the start"):
        checkpoint.read(last)
    checkpoint.save({"state_dict": {}}, earlier)
    with pytest.raises(CheckpointError, match=rf"resume from {earlier}"):
        checkpoint.read(last)


def test_the_replaced_file_keeps_its_other_name(tmp_path):
    from visionlab import atomic

    for text in ("one", "two", "three"):
        with atomic.replacing(tmp_path / "f", keep=tmp_path / "before") as file:
            file.write(text.encode())
    assert [(tmp_path / n).read_text() for n in ("before", "f")] == ["two", "three"]
    (tmp_path / ".f.123.part").touch()
    atomic.remove_leftovers(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["before", "f"]


def test_a_kill_at_any_moment_of_a_save_leaves_two_files(tmp_path, monkeypatch):
    """Damage to one name must not reach the other: they are never links to one file."""
    from visionlab import atomic

    last, before = tmp_path / "f", tmp_path / "before"
    for text in ("one", "two"):
        with atomic.replacing(last, keep=before) as file:
            file.write(text.encode())
    replace, seen = Path.replace, []

    def watched(self, target):
        seen.append(os.path.samefile(last, before))
        replace(self, target)
        seen.append(os.path.samefile(last, before))

    monkeypatch.setattr(Path, "replace", watched)
    with atomic.replacing(last, keep=before) as file:
        file.write(b"three")
    assert seen == [False] * 4


def test_any_bit_turned_at_the_end_of_the_file_is_told_or_harmless(tmp_path):
    """Python's zip reader raises several kinds of errors for the records that end an archive."""
    path = tmp_path / "last.ckpt"
    checkpoint.save({"state_dict": {"w": torch.arange(6.0)}}, path)
    data = path.read_bytes()
    for bit in range(8 * (len(data) - 120), 8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        try:
            found = checkpoint.read(path)
        except CheckpointError:
            continue
        assert torch.equal(found["state_dict"]["w"], torch.arange(6.0))
