"""Noise from a generator; images checked at the door."""

import pytest
import torch

from visionlab.proximal.physics import add_noise
from visionlab.proximal.physics.base import check_images


def test_noise_comes_from_the_generator_only() -> None:
    y = torch.zeros(2, 1, 50, 50)
    a, b = (add_noise(y, 0.3, generator=torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(a, b)
    assert float(a.std()) == pytest.approx(0.3, rel=0.05)
    assert not y.any()


def test_images_are_checked_at_the_door() -> None:
    good = torch.rand(1, 1, 4, 4)
    assert check_images(good) is good
    with pytest.raises(TypeError, match=r"expected floats .* got torch.uint8; divide by 255"):
        check_images(torch.zeros(1, 1, 4, 4, dtype=torch.uint8))
    with pytest.raises(TypeError, match="expected a torch tensor, got list"):
        check_images([[1.0]])
    with pytest.raises(ValueError, match=r"expected \(B, C, H, W\), got shape \(4, 4\)"):
        check_images(good[0, 0])
    with pytest.raises(ValueError, match="empty"):
        check_images(good[:0])
    with pytest.raises(ValueError, match="measurements: 1 of 16 values are NaN or infinite"):
        check_images(good.index_put((torch.tensor(0),) * 4, torch.tensor(float("nan"))),
                     name="measurements")  # fmt: skip
