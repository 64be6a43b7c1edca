"""Noise fields: both ways have the covariance of the spectrum; indexed draws are exact."""

import numpy as np
import pytest
import torch

from visionlab.masking.keys import GeneratorDraws, IndexedDraws
from visionlab.masking.noise import NoiseField, covariance, separable_factors
from visionlab.masking.noise import _plane_root as plane_root
from visionlab.masking.noise import _torus_root as torus_root
from visionlab.masking.spectrum import (
    Blue,
    Custom,
    DifferenceOfGaussians,
    Green,
    Purple,
    Red,
    White,
    frequency_plane,
)

SPECTRA = [Green(), Red(), Blue(), Purple(), DifferenceOfGaussians(0.8, 1.5)]
CPU = torch.device("cpu")


@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize("grid", [(6, 9), (1, 13)])
def test_covariance_is_that_of_filtered_white_noise(spectrum, grid):
    """Against the definition: noise on a large torus, multiplied by H in the frequency domain."""
    n = 256
    h = np.abs(spectrum(frequency_plane(n, n)))
    kernel = np.fft.ifft2(h).real  # field = kernel * noise
    places = np.argwhere(np.ones(grid, bool))
    rows = np.stack([np.roll(kernel, tuple(p), (0, 1)).ravel() for p in places])
    direct = rows @ rows.T
    np.testing.assert_allclose(covariance(spectrum, grid), direct / direct[0, 0], atol=1e-9)


@pytest.mark.parametrize("spectrum", SPECTRA)
def test_roots_square_to_the_covariance(spectrum):
    grid = (7, 10)
    root = plane_root(spectrum, grid)
    np.testing.assert_allclose(root @ root, covariance(spectrum, grid), atol=1e-10)
    np.testing.assert_allclose(root, root.T, atol=1e-12)
    torus = torus_root(spectrum, grid)
    np.testing.assert_allclose(torus @ torus, covariance(spectrum, grid, "torus"), atol=1e-10)


@pytest.mark.parametrize("boundary", ["plane", "torus"])
@pytest.mark.parametrize("spectrum", SPECTRA)
def test_separable_way_has_the_same_covariance(spectrum, boundary):
    grid = (8, 11)
    left, right = separable_factors(spectrum, grid, boundary)
    # field[i, j] = sum_k A_k[i] X B_k[j]: each patch's weights over the noise
    weights = np.einsum("kim,kjn->ijmn", left, right).reshape(grid[0] * grid[1], -1)
    np.testing.assert_allclose(weights @ weights.T, covariance(spectrum, grid, boundary), atol=5e-3)


def test_default_green_needs_three_terms_and_red_one():
    assert len(separable_factors(Green(), (40, 40))[0]) == 3
    assert len(separable_factors(Red(), (40, 40))[0]) == 1


@pytest.mark.parametrize("method", ["root", "separable"])
@pytest.mark.parametrize("exact", [False, True])
def test_samples_have_unit_variance_and_the_right_neighbours(method, exact):
    field = NoiseField(Green(), (5, 6), method=method)
    index = torch.arange(6000)
    draws = IndexedDraws((0, 1), index) if exact else GeneratorDraws((0, 1), 6000, CPU)
    sample = field.sample(draws).double().numpy()
    got = np.cov(sample.T)
    got /= np.mean(np.diag(got))
    np.testing.assert_allclose(got, covariance(Green(), (5, 6)), atol=0.07)


@pytest.mark.parametrize("grid", [(14, 14), (40, 40)])
@pytest.mark.parametrize("boundary", ["plane", "torus"])
@pytest.mark.parametrize("spectrum", [Green(), Red(), White(), Custom(np.ones_like)])
def test_indexed_fields_are_bitwise_equal_for_any_split(grid, boundary, spectrum):
    field = NoiseField(spectrum, grid, boundary=boundary)
    index = torch.arange(17) * 7919
    whole = field.sample(IndexedDraws((3, 4), index))
    parts = [field.sample(IndexedDraws((3, 4), p)) for p in index.split([1, 2, 5, 9])]
    assert torch.equal(whole, torch.cat(parts))
    one_by_one = [field.sample(IndexedDraws((3, 4), i[None])) for i in index.flip(0)]
    assert torch.equal(whole.flip(0), torch.cat(one_by_one))


def test_exact_sums_stay_below_float64s_integers():
    for spectrum in SPECTRA:
        sample = NoiseField(spectrum, (40, 40)).sample(IndexedDraws((0,), torch.arange(8)))
        assert sample.abs().max() * 40 * 40 * 2 < 2**53  # also with the tie-breaking fraction
        assert all(len(row.unique()) == len(row) for row in sample)


def test_autocast_does_not_reach_the_scores():
    field = NoiseField(Green(), (14, 14))
    plain = field.sample(GeneratorDraws((0,), 8, CPU))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(field.sample(GeneratorDraws((0,), 8, CPU)), plain)


@pytest.mark.parametrize(
    ("spectrum", "boundary", "message"),
    [
        (Green(), "sphere", "the boundary is 'plane' or 'torus', got 'sphere'"),
        (Custom(np.zeros_like), "plane", "zero at all frequencies"),
        (Custom(lambda f: np.full_like(f, np.nan)), "plane", "one finite amplitude per frequency"),
        (Custom(lambda f: np.ones(3)), "torus", "one finite amplitude per frequency"),
        (Custom(lambda f: (f == 0) * 1.0), "torus", "zero at all frequencies of a 5x6 grid"),
    ],
)
def test_refusals_are_sentences(spectrum, boundary, message):
    with pytest.raises(ValueError, match=message):
        NoiseField(spectrum, (5, 6), boundary=boundary).sample(GeneratorDraws((0,), 2, CPU))
