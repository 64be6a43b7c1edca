"""The plain ViT: timm's class with its sizes in the open."""

import pytest
import torch

from visionlab.backbones.vit import vit


def test_width_and_heads_must_fit():
    with pytest.raises(ValueError, match="not a multiple of num_heads"):
        vit(embed_dim=10, num_heads=3)


def test_sizes_are_as_asked():
    model = vit((8, 12), (4, 2), in_chans=1, embed_dim=12, depth=3, num_heads=2,
                            mlp_ratio=2.0, reg_tokens=2, drop_path_rate=0.2)  # fmt: skip
    assert model.patch_embed.grid_size == (2, 6)
    assert model.patch_embed.proj.weight.shape == (12, 1, 4, 2)
    assert [b.mlp.fc1.out_features for b in model.blocks] == [24] * 3
    assert model.blocks[0].attn.num_heads == 2
    rates = [getattr(b.drop_path1, "drop_prob", 0.0) for b in model.blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2])
    assert model.forward_features(torch.zeros(1, 1, 8, 12)).shape == (1, 3 + 12, 12)


def test_any_size_that_the_patch_divides_if_asked():
    model = vit(8, 4, embed_dim=6, depth=1, dynamic_img_size=True)
    assert model.forward_features(torch.zeros(1, 3, 12, 20)).shape == (1, 1 + 15, 6)


def test_unknown_stem():
    with pytest.raises(ValueError, match="stem is 'cnn'; expected 'patch' or 'conv'"):
        vit(stem="cnn")
