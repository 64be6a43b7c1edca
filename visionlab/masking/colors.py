"""Masks from coloured noise: the patches with the largest values of a filtered field stay visible.

Hinojosa, Liu, Ghanem: "ColorMAE: Exploring data-independent masking strategies in masked
autoencoders", ECCV 2024. All default filters are calibrated on that paper's figure (see
``spectrum``).
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from visionlab.masking.base import Grid, Mask
from visionlab.masking.keys import Draws
from visionlab.masking.noise import Boundary, NoiseField
from visionlab.masking.spectrum import (
    Array,
    Blend,
    Blue,
    DifferenceOfGaussians,
    Green,
    Profile,
    Purple,
    Red,
    Spectrum,
    White,
    as_spectrum,
    check_weights,
)

Color = str | Spectrum | Callable[[Array], Array]


class ColorMask(Mask):
    """Masks of one colour.

    Args:
        color: name, :class:`Spectrum`, or a function of radial frequencies in cycles per patch.
        boundary: ``plane`` or ``torus`` (flat coverage, another law).
    """

    def __init__(
        self,
        grid: Grid | None = None,
        *,
        color: str | Spectrum | Callable[[Array], Array],
        ratio: float = 0.75,
        boundary: Boundary = "plane",
    ) -> None:
        self.spectrum = as_spectrum(color)
        self.boundary: Boundary = boundary
        NoiseField(
            self.spectrum, (1, 2), boundary=boundary
        )  # checks the boundary before a grid is known
        super().__init__(grid, ratio=ratio)

    def _bind(self, grid: Grid) -> None:
        super()._bind(grid)
        self.field = NoiseField(self.spectrum, grid, boundary=self.boundary)

    def scores(self, draws: Draws, images: Tensor | None = None) -> Tensor:
        """Scores of all patches; see `Mask.scores`."""
        return self.field.sample(draws)

    def _parameters(self) -> dict[str, Any]:
        return {"spectrum": self.spectrum.describe(), "boundary": self.boundary}


class MixMask(Mask):
    """Each image draws one colour, with probability proportional to its weight.

    Unlike :func:`blend`, which filters one field with a mixed spectrum.

    Args:
        colors: colour name (or anything that :class:`ColorMask` takes) -> weight.
    """

    def __init__(
        self,
        grid: Grid | None = None,
        *,
        colors: Mapping[str, float],
        ratio: float = 0.75,
        boundary: Boundary = "plane",
    ) -> None:
        check_weights(colors, "mix")
        self.spectra = [as_spectrum(color) for color in colors]
        weights = torch.tensor(list(colors.values()), dtype=torch.float64)
        self.weights = weights / weights.sum()
        self.boundary: Boundary = boundary
        super().__init__(grid, ratio=ratio)

    def _bind(self, grid: Grid) -> None:
        super()._bind(grid)
        self.fields = [NoiseField(s, grid, boundary=self.boundary) for s in self.spectra]

    def scores(self, draws: Draws, images: Tensor | None = None) -> Tensor:
        """Scores of all patches; see `Mask.scores`."""
        edges = self.weights.cumsum(0)[:-1].to(draws.device)
        choice = torch.bucketize(draws.uniform(1).double(), edges, right=True)
        # every colour draws for every image: a row then depends on its own numbers alone
        fields = [field.sample(draws).double() for field in self.fields]
        return torch.stack(fields, 1).gather(
            1, choice[:, :, None].expand(-1, 1, fields[0].shape[1])
        )[:, 0]

    def _parameters(self) -> dict[str, Any]:
        parts = zip(self.spectra, self.weights.tolist())
        return {"colors": [[s.describe(), w] for s, w in parts], "boundary": self.boundary}


def white(
    grid: Grid | None = None, *, ratio: float = 0.75, boundary: Boundary = "plane"
) -> ColorMask:
    """White noise: the law of MAE's random masks."""
    return ColorMask(grid, color=White(), ratio=ratio, boundary=boundary)


def red(
    grid: Grid | None = None,
    *,
    ratio: float = 0.75,
    sigma: float = Red.sigma,
    boundary: Boundary = "plane",
) -> ColorMask:
    """Low-pass noise: large visible regions. ``sigma`` in patches."""
    return ColorMask(grid, color=Red(sigma), ratio=ratio, boundary=boundary)


def blue(
    grid: Grid | None = None,
    *,
    ratio: float = 0.75,
    sigma: float = Blue.sigma,
    order: int = Blue.order,
    boundary: Boundary = "plane",
) -> ColorMask:
    """High-pass noise: visible patches far from each other. ``sigma`` in patches."""
    return ColorMask(grid, color=Blue(sigma, order), ratio=ratio, boundary=boundary)


def green(
    grid: Grid | None = None,
    *,
    ratio: float = 0.75,
    f0: float = Green.f0,
    order: int = Green.order,
    boundary: Boundary = "plane",
) -> ColorMask:
    """Band-pass noise: visible clusters of a few patches. ``f0`` in cycles per patch."""
    return ColorMask(grid, color=Green(f0, order), ratio=ratio, boundary=boundary)


def purple(
    grid: Grid | None = None,
    *,
    ratio: float = 0.75,
    gain: float = Purple.gain,
    sigma_low: float = Purple.sigma_low,
    sigma_high: float = Purple.sigma_high,
    order: int = Purple.order,
    boundary: Boundary = "plane",
) -> ColorMask:
    """Band-stop noise: regions of visible checkerboard. Sigmas in patches."""
    spectrum = Purple(gain, sigma_low, sigma_high, order)
    return ColorMask(grid, color=spectrum, ratio=ratio, boundary=boundary)


def dog(
    grid: Grid | None = None,
    *,
    sigma_weak: float,
    sigma_strong: float,
    order: int = 1,
    ratio: float = 0.75,
    boundary: Boundary = "plane",
) -> ColorMask:
    """Difference of two Gaussian blurs, sigmas in patches: a green of your own."""
    spectrum = DifferenceOfGaussians(sigma_weak, sigma_strong, order)
    return ColorMask(grid, color=spectrum, ratio=ratio, boundary=boundary)


def profile(
    grid: Grid | None = None,
    *,
    frequencies: list[float],
    amplitudes: list[float],
    ratio: float = 0.75,
    boundary: Boundary = "plane",
) -> ColorMask:
    """A colour given as a table of amplitudes over frequencies in cycles per patch."""
    spectrum = Profile(tuple(frequencies), tuple(amplitudes))
    return ColorMask(grid, color=spectrum, ratio=ratio, boundary=boundary)


def blend(
    grid: Grid | None = None,
    *,
    colors: Mapping[str, float],
    ratio: float = 0.75,
    boundary: Boundary = "plane",
) -> ColorMask:
    """One field whose covariance is the weighted mean of the colours', name -> weight."""
    check_weights(colors, "blend")
    parts = tuple((as_spectrum(color), weight) for color, weight in colors.items())
    return ColorMask(grid, color=Blend(parts), ratio=ratio, boundary=boundary)
