import pytest
import torch

from visionlab import checkpoint
from visionlab.backbones import create_backbone
from visionlab.backbones.weights import encoder_state
from visionlab.checkpoint import CheckpointError

SIZES = {"patch_size": 4, "embed_dim": 6, "depth": 1}


def vit(img_size=8, **more):
    return create_backbone("vit", img_size=img_size, **SIZES | more)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_exported_encoder_comes_back_equal(tmp_path, suffix):
    source = vit()
    checkpoint.export_encoder(source, tmp_path / f"e{suffix}")
    again = vit(checkpoint_path=tmp_path / f"e{suffix}")
    assert all(
        torch.equal(a, b) for a, b in zip(source.state_dict().values(), again.state_dict().values())
    )


def test_positions_are_resampled_from_a_non_square_grid(tmp_path):
    source = vit(img_size=(8, 16))
    checkpoint.export_encoder(source, tmp_path / "e.pth")
    again = vit(img_size=(16, 32), checkpoint_path=tmp_path / "e.pth")
    assert again.pos_embed.shape == (1, 1 + 4 * 8, 6)
    assert torch.equal(again.pos_embed[:, :1], source.pos_embed[:, :1])
    # bicubic resampling keeps the mean of each channel
    old, new = source.pos_embed[0, 1:].mean(0), again.pos_embed[0, 1:].mean(0)
    assert torch.allclose(old, new, atol=0.02)


def test_non_square_grid_without_side_car_is_refused(tmp_path):
    checkpoint.export_encoder(vit(img_size=(8, 16)), tmp_path / "e.pth").unlink()
    with pytest.raises(CheckpointError, match="no square grid"):
        vit(img_size=(16, 32), checkpoint_path=tmp_path / "e.pth")


def test_another_width_is_refused_by_name(tmp_path):
    checkpoint.export_encoder(vit(), tmp_path / "e.pth")
    with pytest.raises(CheckpointError, match="other shapes"):
        vit(embed_dim=12, checkpoint_path=tmp_path / "e.pth")


def test_missing_file():
    with pytest.raises(FileNotFoundError):
        vit(checkpoint_path="nowhere.pth")


def test_encoder_is_found_in_every_layout():
    weight = torch.ones(2)
    for layout in (
        {"cls_token": weight, "mask_token": weight, "decoder_embed.weight": weight},
        {"model": {"cls_token": weight, "decoder_pred.bias": weight}},
        {"state_dict": {"model.backbone.cls_token": weight, "model.decoder.x": weight}, "epoch": 3},
        {"state_dict": {"backbone.cls_token": weight, "head.weight": weight}},
    ):
        assert list(encoder_state(layout)) == ["cls_token"]


def test_pretrained_and_local_file_exclude_each_other():
    with pytest.raises(ValueError, match="not both"):
        create_backbone("vit_tiny_patch16_224", pretrained=True, checkpoint_path="x.pth")
