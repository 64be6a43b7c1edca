"""Compressed sensing: orthonormal rows that spread every pixel."""

import pytest
import torch

from visionlab.proximal.physics import CompressedSensing


def test_compressed_sensing_has_orthonormal_rows_and_is_reproducible() -> None:
    sensing = CompressedSensing((1, 8, 9), ratio=0.25, seed=5)
    y = torch.randn(3, 18, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(sensing(sensing.adjoint(y)), y)
    again, other = (CompressedSensing((1, 8, 9), ratio=0.25, seed=s) for s in (5, 6))
    assert torch.equal(sensing.adjoint(y), again.adjoint(y))
    assert not torch.equal(sensing.adjoint(y), other.adjoint(y))


def test_compressed_sensing_spreads_one_pixel_over_all_measurements() -> None:
    pixel = torch.zeros(1, 1, 32, 32, dtype=torch.float64)
    pixel[0, 0, 5, 7] = 1
    y = CompressedSensing((1, 32, 32), ratio=0.25)(pixel)
    assert float(y.abs().max()) < 0.2  # incoherent: no measurement sees much of one pixel
    assert float(y.norm()) == pytest.approx(0.5, abs=0.05)


def test_messages() -> None:
    with pytest.raises(ValueError, match=r"in \(0, 1\], got 1.5"):
        CompressedSensing((1, 8, 8), ratio=1.5)
    sensing = CompressedSensing((1, 8, 8), ratio=0.5)
    with pytest.raises(ValueError, match=r"images of shape \(1, 8, 8\), got \(1, 9, 8\)"):
        sensing(torch.zeros(1, 1, 9, 8))
    with pytest.raises(ValueError, match=r"measurements of shape \(B, 32\), got \(1, 31\)"):
        sensing.adjoint(torch.zeros(1, 31))
    with pytest.raises(ValueError, match=r"each at least 1, got \(1, 0, 8\)"):
        CompressedSensing((1, 0, 8), ratio=0.5)
