"""What timm makes of an exported encoder."""

import json

import pytest
import torch

from visionlab import checkpoint, encoder_export
from visionlab.backbones import create_backbone
from visionlab.checkpoint import CheckpointError


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

    monkeypatch.setattr(encoder_export, "_verify_export", other)
    with pytest.raises(CheckpointError, match="another tensor"):
        checkpoint.export_encoder(vit, path, overwrite=True)
    assert path.read_bytes() == before
    assert {p.name for p in tmp_path.iterdir()} == {"e.safetensors", "e.safetensors.json"}


def test_export_wants_a_mean_for_each_channel(tmp_path):
    vit = create_backbone("vit", img_size=8, patch_size=4, embed_dim=6, depth=1)
    with pytest.raises(ValueError, match="mean has 1 numbers, the encoder 3 channels"):
        checkpoint.export_encoder(vit, tmp_path / "e.pth", mean=(0.5,))
