"""Backbones by name."""

import pytest
import torch

from visionlab.backbones import (
    BACKBONES,
    create_backbone,
    list_backbones,
    register_backbone,
)


def test_wildcards():
    names = list_backbones("vit_small*")
    assert "vit_small_patch16_224" in names
    assert all(n.startswith("vit_small") for n in names)
    assert "vit" in list_backbones()


def test_misspelt_name():
    with pytest.raises(ValueError, match="Did you mean 'vit_base_patch16_224'"):
        create_backbone("vit_bse_patch16_224")


def test_own_backbone_by_decorator():
    @register_backbone("test_identity")
    class Identity(torch.nn.Identity): ...

    assert isinstance(create_backbone("test_identity"), Identity)
    BACKBONES._entries.pop("test_identity")
