import math

import pytest
import torch

from visionlab.proximal.physics import Tomography


def disc(size: int, *, radius: float, centre: tuple[float, float]) -> torch.Tensor:
    """1 inside, 0 outside; centre as (x right, y up) from the middle of the image."""
    t = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    inside = (t[None] - centre[0]) ** 2 + (-t[:, None] - centre[1]) ** 2 < radius**2
    return inside.double()[None, None]


def test_a_disc_projects_to_its_chords() -> None:
    """Worked by hand: at offset d from the shifted centre the chord is 2 sqrt(r^2 - d^2)."""
    scanner = Tomography(96, angles=5, normalize=False)
    sinogram = scanner(disc(96, radius=25, centre=(8.0, -5.0)))[0, 0]
    t = torch.arange(scanner.detectors, dtype=torch.float64) - (scanner.detectors - 1) / 2
    for view, angle in enumerate(scanner.view_angles.tolist()):
        d = t - (8 * math.cos(angle) - 5 * math.sin(angle))
        chord = 2 * (25**2 - d**2).clamp_min(0).sqrt()
        assert (sinogram[view] - chord).abs().mean() < 0.6
        assert float(sinogram[view].sum()) == pytest.approx(math.pi * 25**2, rel=0.01)


def test_filtered_back_projection_inverts_many_views() -> None:
    phantom = disc(64, radius=15, centre=(4.0, 3.0))
    for normalize in (True, False):
        scanner = Tomography(64, angles=180, normalize=normalize)
        error = (scanner.fbp(scanner(phantom)) - phantom).square().mean().sqrt()
        assert error < 0.06  # the ringing of the sharp edge
        smooth = scanner.fbp(scanner(phantom), cutoff=0.8)
        assert float(smooth[0, 0, 29, 35]) == pytest.approx(1, abs=0.02)


def test_normalised_operator_has_norm_one() -> None:
    scanner = Tomography(32, angles=12)
    assert scanner.norm2((1, 32, 32)) == pytest.approx(1, rel=2e-3)
    raw = Tomography(32, angles=12, normalize=False)
    x = disc(32, radius=9, centre=(0.0, 0.0))
    torch.testing.assert_close(scanner(x), raw(x) * scanner.scale)


def test_a_whole_scanner_can_be_moved_to_single_precision() -> None:
    scanner = Tomography(16, angles=5).float()
    assert scanner.ray_weight.dtype == torch.float32
    assert scanner(disc(16, radius=4, centre=(0.0, 0.0)).float()).dtype == torch.float32


def test_messages() -> None:
    with pytest.raises(ValueError, match="need size >= 2"):
        Tomography(1)
    scanner = Tomography(16, angles=5)
    with pytest.raises(ValueError, match=r"images of shape \(B, C, 16, 16\), got \(1, 1, 17, 16\)"):
        scanner(torch.zeros(1, 1, 17, 16))
    with pytest.raises(ValueError, match=r"sinograms of shape \(B, C, 5 views, 25 detectors\)"):
        scanner.adjoint(torch.zeros(1, 1, 6, 25))
    with pytest.raises(ValueError, match="cutoff is a fraction"):
        scanner.fbp(torch.zeros(1, 1, 5, 25), cutoff=1.5)
