"""timm's models as backbones: all tokens, local weights, and arguments that are told apart."""

import pytest
import torch

from visionlab.backbones.timm_models import create_timm


def test_a_vit_comes_without_pooling_and_head():
    model = create_timm("vit_tiny_patch16_224", img_size=(32, 48), depth=1)
    assert isinstance(model.head, torch.nn.Identity)
    assert model(torch.zeros(1, 3, 32, 48)).shape == (1, 1 + 6, 192)


def test_unknown_arguments_get_the_nearest_right_one():
    with pytest.raises(TypeError, match=r"no argument 'dpth'\. Did you mean 'depth'"):
        create_timm("vit_tiny_patch16_224", dpth=2)
    with pytest.raises(TypeError, match=r"resnet18 refused its arguments: .*'dpth'"):
        create_timm("resnet18", dpth=2)


def test_weights_come_from_one_place(tmp_path):
    with pytest.raises(ValueError, match="pretrained=True or checkpoint_path, not both"):
        create_timm("vit_tiny_patch16_224", pretrained=True, checkpoint_path=tmp_path / "w.pth")
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        create_timm("vit_tiny_patch16_224", depth=1, checkpoint_path=tmp_path / "w.pth")
