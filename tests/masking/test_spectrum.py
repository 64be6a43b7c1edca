"""Spectra: their formulas, their descriptions and their refusals."""

import numpy as np
import pytest

from visionlab.masking.spectrum import (
    COLORS,
    Blend,
    Blue,
    Custom,
    DifferenceOfGaussians,
    Green,
    Profile,
    Purple,
    Red,
    White,
    as_spectrum,
    frequency_plane,
    gaussian,
)

F = np.linspace(0, 0.7, 71)
# radial profile of the published figure, in units of its own colour scale
FIGURE_F = [0.075, 0.105, 0.135, 0.165, 0.195, 0.225, 0.255, 0.285, 0.315, 0.345]
FIGURE_GREEN = [0.08, 0.25, 0.45, 0.58, 0.66, 0.62, 0.48, 0.32, 0.17, 0.09]


def test_gaussian_is_the_transfer_of_a_blur():
    n, sigma = 256, 2.5
    x = np.arange(n) - n // 2
    kernel = np.exp(-(x**2) / (2 * sigma**2))
    transfer = np.abs(np.fft.fft(kernel / kernel.sum()))
    np.testing.assert_allclose(transfer, gaussian(np.fft.fftfreq(n), sigma), atol=1e-6)


def test_green_is_the_limit_of_a_difference_of_gaussians_applied_twice():
    sigma = 1 / (np.sqrt(2) * np.pi * Green().f0)
    dog = DifferenceOfGaussians(sigma * 0.999, sigma * 1.001, order=2)
    ratio = dog(F[5:60]) / Green()(F[5:60])
    np.testing.assert_allclose(ratio / ratio.mean(), 1, rtol=1e-3)


def test_green_follows_the_published_periodogram():
    np.testing.assert_allclose(0.66 * Green()(np.array(FIGURE_F)), FIGURE_GREEN, atol=0.055)


def test_red_follows_the_published_periodogram():
    shape = Red()(np.array([0.075, 0.105, 0.135]))
    figure = np.array([0.54, 0.11, 0.02])
    gain = (shape @ figure) / (shape @ shape)
    np.testing.assert_allclose(gain * shape, figure, atol=0.03)


def test_purple_follows_the_published_periodogram():
    # up to .615: at the corner the figure's colour scale is clipped
    f = np.array([0.135, 0.225, 0.315, 0.405, 0.495, 0.555, 0.615])
    figure = np.array([0.03, 0.02, 0.02, 0.03, 0.10, 0.29, 0.61])
    shape = Purple()(f)
    gain = (shape @ figure) / (shape @ shape)
    np.testing.assert_allclose(gain * shape, figure, atol=0.05)


def test_passes_what_the_names_say():
    low, mid, high = np.array([0.02]), np.array([0.2]), np.array([0.7])
    assert Red()(low) > 0.5 > 1e-3 > Red()(mid)
    assert Blue()(high) > 0.5 > 0.05 > Blue()(low)
    assert Green()(mid) > 0.9 > 0.01 > Green()(high)
    assert Purple()(mid) < 0.01 < 0.2 < Purple()(low)


def test_blend_mixes_unit_variance_colours():
    plane = frequency_plane(256, 256)
    parts = [(Red(), 3.0), (Blue(), 1.0)]
    expected = sum(w / 4 * h(plane) ** 2 / np.mean(h(plane) ** 2) for h, w in parts)
    blended = Blend(tuple(parts))(plane)
    np.testing.assert_allclose(blended**2, expected)
    assert np.mean(blended**2) == pytest.approx(1)


def test_profile_interpolates():
    profile = Profile((0.1, 0.3), (0.0, 1.0))
    np.testing.assert_allclose(profile(np.array([0, 0.1, 0.2, 0.3, 0.7])), [0, 0, 0.5, 1, 1])


def test_names_and_functions_become_spectra():
    assert as_spectrum("green") == Green()
    assert as_spectrum(Red(2.0)) == Red(2.0)
    assert isinstance(as_spectrum(np.sqrt), Custom)
    assert set(COLORS) == {"white", "red", "blue", "green", "purple"}


@pytest.mark.parametrize("spectrum", [Red(), Blue(), Green(), Purple()])
def test_defaults_are_labelled_as_calibrated(spectrum):
    assert "calibrated on the published figure, not the authors'" in spectrum.describe()["note"]


def test_own_parameters_carry_no_calibration_label():
    assert "note" not in Red(2.0).describe()
    assert White().describe() == {"kind": "white"}
    assert Custom(np.sqrt).describe()["function"].endswith("sqrt")
    assert [w for _, w in Blend(((Red(), 2.0),)).describe()["parts"]] == [2.0]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: as_spectrum("gren"), "no colour 'gren'. Did you mean 'green'"),
        (lambda: as_spectrum(3), "a colour is a name, a Spectrum or a function"),
        (lambda: Red(0), "Red: sigma must be positive, got 0"),
        (lambda: Green(order=-1), "Green: order must be positive, got -1"),
        (lambda: Blue(float("nan")), "Blue: sigma must be positive"),
        (lambda: DifferenceOfGaussians(2, 1), "sigma_weak must be smaller .* swap them"),
        (lambda: Profile((0.1,), (1.0, 2.0)), "as many amplitudes as frequencies"),
        (lambda: Profile((0.2, 0.1), (1.0, 2.0)), "must increase"),
        (lambda: Blend(((Red(), 0.0),)), "weights of a blend are >= 0 with a positive sum"),
    ],
)
def test_refusals_are_sentences(build, message):
    with pytest.raises((ValueError, TypeError), match=message):
        build()
