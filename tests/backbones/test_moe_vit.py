"""The registered MoE ViTs."""

from pathlib import Path

import pytest
import torch

from visionlab import config, schema
from visionlab.backbones import create_backbone, list_backbones
from visionlab.backbones.moe_vit import MoEOptions
from visionlab.backbones.protocol import grid_size, num_prefix_tokens, patch_size
from visionlab.checkpoint import export_encoder
from visionlab.masking import MaskedAutoencoder, create_mask
from visionlab.moe import insert_moe

SIZES = {"moe_vit_tiny": 192, "moe_vit_small": 384, "moe_vit_base": 768}


@pytest.mark.parametrize("name", SIZES)
def test_sized_models_build_and_run(name: str) -> None:
    model = create_backbone(
        name, img_size=32, patch_size=16, depth=2, num_experts=4, top_k=2, tasks=["cls", "seg"]
    )
    tokens = model.forward_features(torch.randn(1, 3, 32, 48), task="seg")
    assert tokens.shape == (1, 1 + 2 * 3, SIZES[name])
    assert name in list_backbones("moe_vit_*")
    assert patch_size(model) == (16, 16)
    assert grid_size(model, (32, 48)) == (2, 3)
    assert num_prefix_tokens(model) == 1


def test_any_backbone_of_the_registry() -> None:
    inner = create_backbone("vit_tiny_patch16_224", img_size=32, depth=2)
    model = create_backbone("moe_vit", backbone=inner, upcycle=True, num_experts=4, top_k=2).eval()
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(
        model.forward_features(x), inner.eval().forward_features(x), rtol=1e-5, atol=1e-5
    )


def test_layout_is_a_constructor_argument() -> None:
    options = {"img_size": 32, "depth": 2, "num_experts": 4, "top_k": 2, "tasks": ["cls", "seg"]}
    model = create_backbone("moe_vit_tiny", **options)
    layer = dict(model.moe_layers())["blocks.1.mlp"]
    layer.add_experts(2, tasks=["seg"])
    layer.set_top_k("cls", 1)
    again = create_backbone("moe_vit_tiny", **options, layout=model.layout)
    again.load_state_dict(model.state_dict())
    x = torch.randn(1, 3, 32, 32)
    for task in ("cls", "seg"):
        assert torch.equal(model.eval()(x, task=task), again.eval()(x, task=task))


def test_a_color_mae_encoder_becomes_a_moe_vit_with_equal_output(tmp_path: Path) -> None:
    """Pre-train a step, export the encoder, build the MoE ViT from the file: equal at the start."""
    sizes = {"img_size": 32, "patch_size": 8, "depth": 2, "embed_dim": 48, "num_heads": 3}
    torch.manual_seed(0)
    mask = create_mask("green", grid=(4, 4), ratio=0.5)
    mae = MaskedAutoencoder(create_backbone("vit", **sizes), mask)
    optimizer = torch.optim.SGD(mae.parameters(), 0.1)
    mae(torch.randn(4, 3, 32, 32)).loss.backward()
    optimizer.step()
    export_encoder(mae, tmp_path / "encoder.pth")
    encoder = create_backbone("vit", **sizes, checkpoint_path=tmp_path / "encoder.pth").eval()
    model = create_backbone(
        "moe_vit", backbone=encoder, upcycle=True, num_experts=8, top_k=2, tasks=["cls", "seg"]
    ).eval()
    x = torch.randn(2, 3, 32, 32)
    expected = mae.encode(x)
    for task in ("cls", "seg"):
        torch.testing.assert_close(model(x, task=task), expected, rtol=1e-5, atol=1e-5)


def test_options_are_those_of_insert_moe() -> None:
    known = schema.parameters(insert_moe)
    assert list(MoEOptions.__annotations__) == [n for n in known if n != "vit"]


def test_a_config_names_a_wrong_option_before_anything_is_built() -> None:
    node = config.read(Path(__file__).parents[2] / "configs" / "moe" / "items_in_the_wild.yaml")
    node["task"]["model"]["backbone"] |= {"num_expert": 4, "top_k": "two"}
    with pytest.raises(config.ConfigError) as caught:
        config.check(node)
    text = str(caught.value)
    assert "no key 'num_expert'. Did you mean 'num_experts'" in text
    assert "backbone.top_k: expected int, got 'two'" in text
