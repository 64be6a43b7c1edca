"""Statistics of masks: what a colour does to the visible patches."""

from dataclasses import dataclass

import torch
from torch import Tensor

from visionlab.masking.base import Mask


@dataclass(frozen=True)
class MaskStatistics:
    """Statistics over many masks of one strategy.

    Attributes:
        keep_rate: (H, W) share of masks in which a patch is visible.
        periodogram: (H, W) mean power of the visible patches, 1 = white noise, in FFT order (DC
            first).
        frequency: centres of the radial bins, cycles per patch.
        energy: mean of the periodogram in each bin.
        neighbour_rate: visible neighbour pairs / (2 x visible patches); .23 for white at 14x14 and
            ratio .75.
        neighbour_rate_inside: chance that an in-grid neighbour of a visible patch is visible.
        samples: number of masks.
    """

    keep_rate: Tensor
    periodogram: Tensor
    frequency: Tensor
    energy: Tensor
    neighbour_rate: float
    neighbour_rate_inside: float
    samples: int


def mask_statistics(
    mask: Mask,
    *,
    samples: int = 4096,
    key: tuple[int, ...] = (0,),
    images: Tensor | None = None,
    epoch: float | None = None,
) -> MaskStatistics:
    """Draw masks and measure them.

    Example:
        >>> from visionlab.masking import create_mask
        >>> stats = mask_statistics(create_mask("green", grid=(14, 14)), samples=512)
        >>> 0.44 < stats.neighbour_rate < 0.54
        True
    """
    visible = mask(samples, key=key, images=images, epoch=epoch).visible
    power = periodogram(visible)
    frequency, energy = radial_profile(power)
    pairs, inside = neighbour_rate(visible)
    return MaskStatistics(keep_rate(visible), power, frequency, energy, pairs, inside, samples)


def keep_rate(visible: Tensor) -> Tensor:
    """Share of masks (N, H, W) in which each patch is visible, (H, W)."""
    return visible.double().mean(0)


def periodogram(visible: Tensor) -> Tensor:
    """Mean of ``|FFT(visible - mean)|^2`` over its average off DC, (H, W): 1 = white noise."""
    picture = visible.double()
    picture = picture - picture.mean((1, 2), keepdim=True)
    power = torch.fft.fft2(picture).abs().square().mean(0)
    return power / (power.sum() / (power.numel() - 1))  # the DC term is zero by construction


def radial_profile(
    power: Tensor, *, width: float = 0.1, start: float = 0.02
) -> tuple[Tensor, Tensor]:
    """Ring means of a periodogram in FFT order.

    Returns:
        Centres of the rings in cycles per patch and the mean in each; empty rings are left out.
    """
    height, columns = power.shape
    rows = torch.fft.fftfreq(height, dtype=torch.float64)[:, None]
    radius = torch.hypot(rows, torch.fft.fftfreq(columns, dtype=torch.float64)[None])
    centres, means = [], []
    edge = start
    while edge < 0.7072:
        ring = (radius >= edge) & (radius < edge + width) & (radius > 0)
        if ring.any():
            centres.append(edge + width / 2)
            means.append(power[ring].mean().item())
        edge += width
    return torch.tensor(centres), torch.tensor(means)


def neighbour_rate(visible: Tensor) -> tuple[float, float]:
    """How often visible patches of (N, H, W) touch.

    Returns:
        Pairs of visible 4-neighbours / (2 x visible), and the same per in-grid neighbour (free of
        the border's bias).
    """
    shown = visible.double()
    pairs = (shown[:, 1:] * shown[:, :-1]).sum() + (shown[:, :, 1:] * shown[:, :, :-1]).sum()
    neighbours = torch.zeros_like(shown[0])
    neighbours[1:] += 1
    neighbours[:-1] += 1
    neighbours[:, 1:] += 1
    neighbours[:, :-1] += 1
    return (pairs / (2 * shown.sum())).item(), (2 * pairs / (shown * neighbours).sum()).item()
