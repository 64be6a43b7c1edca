"""Super-resolution: blur, then every s-th pixel."""

import pytest
import torch

from visionlab.proximal.physics import SuperResolution


def test_super_resolution_is_blur_then_decimation() -> None:
    enlarge = SuperResolution(3)
    x = torch.rand(1, 1, 12, 15, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(enlarge(x), enlarge.blur(x)[..., ::3, ::3])


def test_messages() -> None:
    with pytest.raises(ValueError, match="factor is a whole number of at least 2, got 1"):
        SuperResolution(1)
    with pytest.raises(ValueError, match="factor is a whole number of at least 2, got nan"):
        SuperResolution(float("nan"))
    with pytest.raises(ValueError, match="an image of 13x12 is not a multiple of the factor 3"):
        SuperResolution(3)(torch.zeros(1, 1, 13, 12))
