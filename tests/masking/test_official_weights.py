"""Published layouts, made here with the published key names."""

import re

import pytest
import timm
import torch

from visionlab.masking import (
    MaskedAutoencoder,
    load_official_autoencoder,
    load_official_encoder,
)
from visionlab.masking.decoders import LightDecoder

SIZES = {"embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 0, "global_pool": ""}


def vit(img_size=64, **options):
    return timm.create_model("vit_tiny_patch16_224", img_size=img_size, **{**SIZES, **options})


def autoencoder(**options):
    return MaskedAutoencoder(vit(**options), decoder=LightDecoder(depth=2, dim=32, heads=4))


def mae_layout(model):
    """Key names of facebookresearch/mae: timm's for the encoder, decoder_* for the decoder."""
    state = dict(model.backbone.state_dict())
    for name, tensor in model.decoder.state_dict().items():
        if name == "positions":
            cls = torch.zeros(1, 1, tensor.shape[1])
            state["decoder_pos_embed"] = torch.cat([cls, tensor[None]], 1)
        elif name == "mask_token":
            state["mask_token"] = tensor
        else:
            part, _, rest = name.partition(".")
            part = {"head": "pred"}.get(part, part)
            state[f"decoder_{part}.{rest}"] = tensor
    return state


def mmpretrain_layout(model):
    """Key names of ColorMAE's checkpoints (mmpretrain)."""
    renames = [
        ("patch_embed.proj.", "patch_embed.projection."),
        (r"(decoder_)?blocks\.(\d+)\.norm(\d)", r"\1layers.\2.ln\3"),
        (r"(decoder_)?blocks\.(\d+)\.mlp\.fc1", r"\1layers.\2.ffn.layers.0.0"),
        (r"(decoder_)?blocks\.(\d+)\.mlp\.fc2", r"\1layers.\2.ffn.layers.1"),
        (r"(decoder_)?blocks\.(\d+)", r"\1layers.\2"),
        ("decoder_layers", "decoder_blocks"),
        ("^(decoder_)?norm", "ln1"),
    ]
    state = {"data_preprocessor.mean": torch.zeros(3, 1, 1)}
    for name, tensor in mae_layout(model).items():
        prefix = "neck." if name.startswith(("decoder_", "mask_token")) else "backbone."
        for pattern, new in renames:
            name = re.sub(pattern, lambda m, new=new: m.expand(new.replace(r"\1", m[1] or "")
                          if r"\1" in new else new), name)  # fmt: skip
        state[prefix + name] = tensor
    return state


@pytest.fixture
def trained():
    model = autoencoder()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


LAYOUTS = [
    lambda m: {"model": mae_layout(m)},
    lambda m: {"meta": {"epoch": 1}, "state_dict": mmpretrain_layout(m)},
    lambda m: {k: v for k, v in mae_layout(m).items() if "decoder" not in k},
]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("as_file", [True, False])
def test_encoder_weights_arrive(trained, layout, as_file, tmp_path):
    content = layout(trained)
    if as_file:
        torch.save(content, tmp_path / "w.pth")
        content = tmp_path / "w.pth"
    other = vit()
    load_official_encoder(other, content)
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(other.eval()(images), trained.backbone.eval()(images))


def test_layouts_have_the_published_names(trained):
    mae, mm = mae_layout(trained), mmpretrain_layout(trained)
    encoder = "cls_token pos_embed patch_embed.proj.weight blocks.0.mlp.fc1.weight norm.bias"
    decoder = "decoder_blocks.1.norm2.bias decoder_pred.bias decoder_embed.weight decoder_norm.bias"
    assert {*encoder.split(), *decoder.split(), "mask_token", "decoder_pos_embed"} <= set(mae)
    encoder = "cls_token ln1.weight patch_embed.projection.bias layers.1.ln2.bias pos_embed"
    layers = "layers.0.ffn.layers.0.0.weight layers.1.ffn.layers.1.bias layers.0.attn.qkv.weight"
    assert {f"backbone.{name}" for name in (encoder + " " + layers).split()} <= set(mm)
    decoder = "mask_token decoder_blocks.1.ffn.layers.1.weight decoder_blocks.0.ln1.weight"
    more = "ln1.bias decoder_pred.weight decoder_pos_embed"
    assert {f"neck.{name}" for name in (decoder + " " + more).split()} <= set(mm)


@pytest.mark.parametrize("layout", LAYOUTS[:2])
def test_decoder_weights_arrive(trained, layout):
    other = autoencoder()
    load_official_autoencoder(other, layout(trained))
    images = torch.randn(2, 3, 64, 64)
    assert torch.equal(other(images, key=(0,)).loss, trained(images, key=(0,)).loss)


def test_positions_are_resampled_to_another_grid(trained):
    other = vit(img_size=(96, 48))
    load_official_encoder(other, mae_layout(trained))
    assert other.pos_embed.shape == (1, 19, 32)
    assert torch.equal(other.pos_embed[:, 0], trained.backbone.pos_embed[:, 0])
    assert torch.equal(other.blocks[1].mlp.fc1.weight, trained.backbone.blocks[1].mlp.fc1.weight)


def test_a_classifier_of_the_model_is_left_alone(trained):
    other = vit(num_classes=5, global_pool="token")
    before = other.head.weight.clone()
    load_official_encoder(other, mae_layout(trained))
    assert torch.equal(other.head.weight, before)


def test_other_files_are_refused(trained, tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        load_official_encoder(vit(), tmp_path / "none.pth")
    with pytest.raises(ValueError, match=r"no published MAE or ColorMAE layout: .* found"):
        load_official_encoder(vit(), {"conv1.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"does not fit the encoder \(missing: blocks.2.*\.\.\.\)"):
        load_official_encoder(vit(depth=3), mae_layout(trained))
    with pytest.raises(ValueError, match=r"not of this model: blocks\.1"):
        load_official_encoder(vit(depth=1), mae_layout(trained))
    state = mae_layout(trained)
    state["norm.weight"] = torch.zeros(7)
    with pytest.raises(ValueError, match=r"norm.weight is \(7,\), expected \(32,\)"):
        load_official_encoder(vit(), state)
    del state["pos_embed"]
    with pytest.raises(ValueError, match="no 'pos_embed'"):
        load_official_encoder(vit(), state)


def test_a_reconstruction_needs_decoder_weights(trained):
    encoder = {k: v for k, v in mae_layout(trained).items() if "decoder" not in k}
    del encoder["mask_token"]
    with pytest.raises(ValueError, match="holds an encoder only; a reconstruction needs"):
        load_official_autoencoder(autoencoder(), encoder)
