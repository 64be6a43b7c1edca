"""Inpainting: where it starts, and what is no mask."""

import pytest
import torch

from visionlab.proximal.physics import Inpainting


def test_inpainting_starts_from_the_mean_of_what_is_seen() -> None:
    mask = torch.tensor([[1, 0], [1, 1]])
    y = Inpainting(mask)(torch.tensor([[[[1.0, 9.0], [2.0, 3.0]]]]))
    assert torch.equal(y, torch.tensor([[[[1.0, 0.0], [2.0, 3.0]]]]))
    assert torch.equal(Inpainting(mask).initial(y), torch.tensor([[[[1.0, 2.0], [2.0, 3.0]]]]))


def test_messages() -> None:
    with pytest.raises(ValueError, match="some pixel seen"):
        Inpainting(torch.zeros(4, 4))
    with pytest.raises(ValueError, match=r"keep is a probability in \(0, 1\], got 0"):
        Inpainting.random((1, 4, 4), keep=0.0)
    with pytest.raises(ValueError, match=r"the mask is \(4, 4\), the image \(4, 5\)"):
        Inpainting(torch.ones(4, 4))(torch.zeros(1, 1, 4, 5))
    with pytest.raises(ValueError, match=r"the mask is \(4, 4\), the image \(4, 5\)"):
        Inpainting(torch.ones(4, 4)).initial(torch.zeros(1, 1, 4, 5))
    with pytest.raises(TypeError, match=r"images: expected floats .* got torch.uint8"):
        Inpainting(torch.full((4, 4), 0.5))(torch.ones(1, 1, 4, 4, dtype=torch.uint8))
