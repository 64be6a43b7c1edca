"""The laws of the colours: neighbours, spectra and coverage, on many masks."""

import numpy as np
import pytest
import torch

from visionlab.masking import create_mask, mask_statistics
from visionlab.masking.colors import ColorMask
from visionlab.masking.spectrum import Red

N = 6000
# rate at which visible patches touch in the one mask that the published figure shows per colour
FIGURE = {"red": 0.779, "green": 0.519, "blue": 0.127, "purple": 0.010}


@pytest.fixture(scope="module")
def statistics():
    names = ("white", "red", "green", "blue", "purple")
    return {n: mask_statistics(create_mask(n, (14, 14)), samples=N) for n in names}


def pairs_per_mask(mask):
    shown = mask(N, key=(9,)).visible.double()
    pairs = (shown[:, 1:] * shown[:, :-1]).sum((1, 2))
    pairs += (shown[:, :, 1:] * shown[:, :, :-1]).sum((1, 2))
    return pairs / (2 * 49)


@pytest.mark.parametrize("name", FIGURE)
def test_neighbours_match_the_published_figure(name):
    """The figure's one mask is a likely draw: within 1.5 deviations and inside the middle 95 %."""
    rate = pairs_per_mask(create_mask(name, (14, 14)))
    assert abs(rate.mean() - FIGURE[name]) < 1.5 * rate.std()
    low, high = torch.quantile(rate, torch.tensor([0.025, 0.975], dtype=rate.dtype))
    assert low <= FIGURE[name] <= high


def test_order_and_level_of_the_neighbour_rate(statistics):
    rate = {n: s.neighbour_rate for n, s in statistics.items()}
    assert rate["white"] == pytest.approx(0.23, abs=0.01)
    assert statistics["white"].neighbour_rate_inside == pytest.approx(48 / 195, abs=0.005)
    assert 0.74 < rate["red"] < 0.80
    assert 0.45 < rate["green"] < 0.52
    assert rate["blue"] == pytest.approx(0.12, abs=0.01)
    assert rate["purple"] < 0.02


def test_energy_lies_where_the_colour_says(statistics):
    def energy(name, low, high):
        s = statistics[name]
        ring = (s.frequency > low) & (s.frequency < high)
        return s.energy[ring].mean().item()

    assert energy("green", 0.12, 0.22) >= 2.3
    assert energy("red", 0.02, 0.12) >= 10
    assert energy("blue", 0.42, 0.72) >= 1.25 > 0.7 >= energy("blue", 0.02, 0.32)
    assert energy("purple", 0.62, 0.72) >= 5
    assert energy("purple", 0.02, 0.12) >= 1.5 > 0.6 >= energy("purple", 0.22, 0.52)
    assert statistics["white"].energy == pytest.approx(np.ones(7), abs=0.05)


def test_blue_of_the_periodogram_is_two_parameters_away():
    rate = mask_statistics(create_mask("blue", (14, 14), sigma=0.5), samples=2000)
    assert rate.neighbour_rate < 0.04
    assert rate.energy[-1] > 2.5


@pytest.mark.parametrize("name", ["white", "red", "green", "blue", "purple"])
def test_coverage_is_flat_on_the_torus(name):
    """Chi-square of the keep counts over patches, its spread from the masks' own covariance."""
    mask = create_mask(name, (14, 14), boundary="torus")
    counts = mask(N, key=(1,)).visible.sum(0).double()
    expected = N / 4
    statistic = ((counts - expected) ** 2).sum() / (expected * 0.75) * (195 / 196)
    # neighbours are correlated: red has few independent cells, so its sum varies more
    shown = mask(2000, key=(2,)).visible.flatten(1).double()
    eigenvalues = torch.linalg.eigvalsh(torch.cov(shown.T)) / 0.1875
    spread = (2 * (eigenvalues**2).sum()) ** 0.5
    assert abs(statistic - 195) < 5 * spread


def test_red_favours_the_border_of_a_plane_and_not_of_a_torus():
    plane = mask_statistics(create_mask("red", (14, 14)), samples=N).keep_rate
    torus = mask_statistics(create_mask("red", (14, 14), boundary="torus"), samples=N).keep_rate
    assert plane.max() - plane.min() > 0.1
    assert torus.max() - torus.min() < 0.06


def test_large_grids_have_the_law_of_small_ones():
    """64x64 is drawn in the separable way, 32x32 from the root."""
    for name in ("green", "red", "blue"):
        small = mask_statistics(create_mask(name, (32, 32)), samples=300)
        large = mask_statistics(create_mask(name, (64, 64)), samples=80)
        assert large.neighbour_rate_inside == pytest.approx(small.neighbour_rate_inside, abs=0.01)


def test_indexed_masks_have_the_same_law():
    for name in ("green", "purple", "red"):
        mask = create_mask(name, (14, 14))
        keyed = mask(N, key=(0,)).visible.double()
        indexed = mask(N, key=(0,), index=torch.arange(N)).visible.double()
        for shift in ((0, 1), (1, 1), (0, 2), (3, 0)):
            a, b = ((x * x.roll(shift, (1, 2))).mean().item() for x in (keyed, indexed))
            assert a == pytest.approx(b, abs=0.004)


def test_white_and_random_are_the_same_masks():
    white, rand = (create_mask(n, (14, 14))(9, key=(4, 5)) for n in ("white", "random"))
    assert torch.equal(white.mask, rand.mask)


def test_mix_draws_each_colour_by_its_weight():
    mix = create_mask("mix", (14, 14), colors={"red": 3.0, "blue": 1.0})
    rate = pairs_per_mask(mix)
    assert (rate > 0.5).double().mean() == pytest.approx(0.75, abs=0.03)  # red ones
    assert ((rate > 0.5) | (rate < 0.3)).all()


def test_mix_by_index_keeps_rows_of_one_colour_equal_to_that_colour():
    mix = create_mask("mix", (14, 14), colors={"green": 1.0})
    shown = mix(50, key=(0,), index=torch.arange(50))
    assert mask_rate(shown) == pytest.approx(0.487, abs=0.03)


def mask_rate(masks):
    shown = masks.visible.double()
    pairs = (shown[:, 1:] * shown[:, :-1]).sum() + (shown[:, :, 1:] * shown[:, :, :-1]).sum()
    return (pairs / (2 * shown.sum())).item()


def test_blend_lies_between_its_colours():
    rate = {
        w: mask_statistics(
            create_mask("blend", (14, 14), colors={"red": 1 - w, "blue": w}), samples=1500
        ).neighbour_rate
        for w in (0.0, 0.3, 0.7, 1.0)
    }
    assert rate[0.0] > rate[0.3] > rate[0.7] > rate[1.0]
    assert rate[0.0] == pytest.approx(0.78, abs=0.01)


def test_a_spectrum_of_ones_own():
    band = ColorMask((14, 14), color=lambda f: ((f > 0.1) & (f < 0.25)) * 1.0)
    stats = mask_statistics(band, samples=1000)
    assert stats.energy[1] > 2.5 > 0.5 > stats.energy[-1]
    assert ColorMask((4, 4), color=Red(1.0)).describe()["spectrum"]["sigma"] == 1.0


def test_boundary_is_checked_before_the_grid_is_known():
    with pytest.raises(ValueError, match="the boundary is 'plane' or 'torus'"):
        create_mask("green", boundary="ring")
