"""Early convolutions: as many tokens as patches, from windows that overlap."""

import pytest
import torch

from visionlab.backbones.conv_stem import ConvPatchEmbed
from visionlab.backbones.vit import vit


@pytest.mark.parametrize("patch", [2, 4, 8, 16])
def test_one_token_for_each_patch(patch):
    stem = ConvPatchEmbed((2 * patch, 3 * patch), patch, 1, 24)
    assert stem(torch.zeros(2, 1, 2 * patch, 3 * patch)).shape == (2, 6, 24)
    halvings = [m for m in stem.proj if isinstance(m, torch.nn.Conv2d) and m.stride == (2, 2)]
    assert 2 ** len(halvings) == patch


def test_a_token_sees_its_patch_and_most_of_the_neighbours_above_and_to_the_left():
    """Three windows of 3 at strides 1, 2 and 4: 1 + 2 (1 + 2 + 4) = 15 pixels, up to the last."""
    torch.manual_seed(0)
    stem = ConvPatchEmbed(16, 8, 1, 8)
    image = torch.randn(1, 1, 16, 16, requires_grad=True)
    stem(image)[0, -1].sum().backward()
    seen = image.grad[0, 0] != 0
    assert bool(seen[1:, 1:].all())
    assert not bool(seen[0].any())
    assert not bool(seen[:, 0].any())


def test_a_vit_takes_it_and_learns_through_it():
    model = vit(8, 4, embed_dim=12, depth=1, stem="conv")
    tokens = model.forward_features(torch.randn(2, 3, 8, 8))
    assert tokens.shape == (2, 5, 12)
    tokens.square().sum().backward()
    assert all(p.grad is not None for p in model.patch_embed.parameters())


@pytest.mark.parametrize("patch", [1, 6, (4, 8)])
def test_other_patches_are_refused(patch):
    with pytest.raises(ValueError, match=r"square patches of 2, 4, 8, \.\.\. px"):
        ConvPatchEmbed(24, patch, 3, 16)
