"""A colour is a spectrum: the amplitude H(f) by which white noise is filtered.

``f`` is the radial frequency in cycles per patch; .5 is the Nyquist frequency along an axis, .707
at the corner. ``G_s(f) = exp(-2 pi^2 s^2 f^2)`` is the transfer of a Gaussian blur of s patches.
Red is a low-pass, blue a high-pass, green a band-pass and purple a band-stop (Hinojosa et al.,
ECCV 2024).

The authors published neither filters nor sigmas. The defaults here are **calibrated on the paper's
overview figure; they are not the authors' parameters**. Green and red follow its periodograms.
Blue and purple follow the rate at which visible patches touch in its masks (see README,
"Calibration").
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

CALIBRATION = "calibrated on the published figure, not the authors' parameters"


def gaussian(frequency: Array, sigma: float) -> Array:
    """G_s: the transfer of a Gaussian blur of ``sigma`` patches."""
    return np.exp(-2 * np.pi**2 * sigma**2 * frequency**2)


def frequency_plane(height: int, width: int) -> Array:
    """Radial frequencies of an FFT grid, (height, width), cycles per patch."""
    return np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])


class Spectrum:
    """Base of all spectra: hashable, callable on frequencies, describable for the run record."""

    def __call__(self, frequency: Array) -> Array:
        """Amplitude at radial frequencies in cycles per patch; the sign is irrelevant."""
        raise NotImplementedError

    def describe(self) -> dict[str, Any]:
        """Plain data: the kind and all parameters."""
        parameters: dict[str, Any] = asdict(self) if is_dataclass(self) else {}
        record = {"kind": type(self).__name__.lower(), **parameters}
        if isinstance(self, Red | Blue | Green | Purple) and self == type(self)():
            record["note"] = CALIBRATION
        return record


@dataclass(frozen=True)
class White(Spectrum):
    """H = 1: the law of MAE's random masks."""

    def __call__(self, frequency: Array) -> Array:
        """H at radial frequencies; see the class."""
        return np.ones_like(frequency)


@dataclass(frozen=True)
class Red(Spectrum):
    """Low-pass, H = G_s."""

    sigma: float = 3.6

    def __post_init__(self) -> None:
        _positive(self, "sigma")

    def __call__(self, frequency: Array) -> Array:
        """H at radial frequencies; see the class."""
        return gaussian(frequency, self.sigma)


@dataclass(frozen=True)
class Blue(Spectrum):
    """High-pass, H = (1 - G_s)^n. ``sigma=0.5`` fits the figure's periodogram, .97 its mask."""

    sigma: float = 0.97
    order: int = 4

    def __post_init__(self) -> None:
        _positive(self, "sigma", "order")

    def __call__(self, frequency: Array) -> Array:
        """H at radial frequencies; see the class."""
        return (1 - gaussian(frequency, self.sigma)) ** self.order


@dataclass(frozen=True)
class Green(Spectrum):
    """Band-pass, H = (x e^(1-x))^n with x = (f / f0)^2.

    ``x e^(1-x)`` is the limit of a difference of two Gaussians of equal sigma, 1 / (sqrt(2) pi f0).
    """

    f0: float = 0.197
    order: int = 2

    def __post_init__(self) -> None:
        _positive(self, "f0", "order")

    def __call__(self, frequency: Array) -> Array:
        """H at radial frequencies; see the class."""
        x = (frequency / self.f0) ** 2
        return (x * np.exp(1 - x)) ** self.order


@dataclass(frozen=True)
class Purple(Spectrum):
    """Band-stop, H = g G_low + (1 - G_high)^n."""

    gain: float = 0.3
    sigma_low: float = 4.0
    sigma_high: float = 0.45
    order: int = 7

    def __post_init__(self) -> None:
        _positive(self, "gain", "sigma_low", "sigma_high", "order")

    def __call__(self, frequency: Array) -> Array:
        """H at radial frequencies; see the class."""
        high = (1 - gaussian(frequency, self.sigma_high)) ** self.order
        return self.gain * gaussian(frequency, self.sigma_low) + high


@dataclass(frozen=True)
class DifferenceOfGaussians(Spectrum):
    """Band-pass of a weak minus a strong blur, H = (G_weak - G_strong)^n."""

    sigma_weak: float
    sigma_strong: float
    order: int = 1

    def __post_init__(self) -> None:
        _positive(self, "sigma_weak", "sigma_strong", "order")
        if self.sigma_weak >= self.sigma_strong:
            raise ValueError(
                f"sigma_weak must be smaller than sigma_strong, "
                f"got {self.sigma_weak} and {self.sigma_strong}; swap them"
            )

    def __call__(self, frequency: Array) -> Array:
        """H at radial frequencies; see the class."""
        weak, strong = gaussian(frequency, self.sigma_weak), gaussian(frequency, self.sigma_strong)
        return (weak - strong) ** self.order


@dataclass(frozen=True)
class Profile(Spectrum):
    """Amplitudes at given frequencies, linear in between and constant outside."""

    frequencies: tuple[float, ...]
    amplitudes: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.frequencies) != len(self.amplitudes) or not self.frequencies:
            raise ValueError(
                f"a profile needs as many amplitudes as frequencies, got "
                f"{len(self.frequencies)} frequencies and {len(self.amplitudes)} amplitudes"
            )
        if any(b <= a for a, b in zip(self.frequencies, self.frequencies[1:])):
            raise ValueError(f"the frequencies of a profile must increase, got {self.frequencies}")

    def __call__(self, frequency: Array) -> Array:
        """H at radial frequencies; see the class."""
        return np.interp(frequency, self.frequencies, self.amplitudes)


@dataclass(frozen=True)
class Custom(Spectrum):
    """A user's own function of the frequency array."""

    function: Callable[[Array], Array]

    def __call__(self, frequency: Array) -> Array:
        """H at radial frequencies; see the class."""
        return np.asarray(self.function(frequency), dtype=np.float64)

    def describe(self) -> dict[str, Any]:
        """Where the function is defined."""
        function = self.function
        name = getattr(function, "__qualname__", repr(function))
        return {"kind": "custom", "function": f"{getattr(function, '__module__', '')}:{name}"}


@dataclass(frozen=True)
class Blend(Spectrum):
    """One field whose covariance is the weighted mean of unit-variance colours.

    ``H = sqrt(sum_c w_c H_c^2 / r_c(0))`` with r_c(0) the variance of colour c.
    """

    parts: tuple[tuple[Spectrum, float], ...]

    def __post_init__(self) -> None:
        check_weights({i: w for i, (_, w) in enumerate(self.parts)}, "blend")

    def __call__(self, frequency: Array) -> Array:
        """H at radial frequencies; see the class."""
        plane = frequency_plane(256, 256)
        total = sum(w for _, w in self.parts)
        power = [w / total * h(frequency) ** 2 / np.mean(h(plane) ** 2) for h, w in self.parts]
        return np.sqrt(np.sum(power, axis=0))

    def describe(self) -> dict[str, Any]:
        """Parts and weights."""
        return {"kind": "blend", "parts": [[h.describe(), w] for h, w in self.parts]}


COLORS: Mapping[str, type[Spectrum]] = {
    "white": White,
    "red": Red,
    "blue": Blue,
    "green": Green,
    "purple": Purple,
}


def as_spectrum(color: "str | Spectrum | Callable[[Array], Array]") -> Spectrum:
    """A colour's name, a spectrum, or a function of the frequency array, as a spectrum.

    Raises:
        ValueError: no colour has this name.
        TypeError: something else came.
    """
    if isinstance(color, Spectrum):
        return color
    if isinstance(color, str):
        from visionlab.registry import suggest

        if color not in COLORS:
            raise ValueError(f"no colour '{color}'. {suggest(color, COLORS)}")
        return COLORS[color]()
    if callable(color):
        return Custom(color)
    raise TypeError(
        f"a colour is a name, a Spectrum or a function of the frequencies, "
        f"got {type(color).__name__} {color!r}"
    )


def check_weights(weights: Mapping[Any, float], kind: str) -> None:
    """Weights are finite and non-negative, and one at least is positive."""
    values = list(weights.values())
    if not values or not all(np.isfinite(w) and w >= 0 for w in values) or sum(values) <= 0:
        raise ValueError(f"the weights of a {kind} are >= 0 with a positive sum, got {values}")


def _positive(spectrum: Spectrum, *names: str) -> None:
    for name in names:
        value = getattr(spectrum, name)
        if not (np.isfinite(value) and value > 0):
            raise ValueError(f"{type(spectrum).__name__}: {name} must be positive, got {value}")
