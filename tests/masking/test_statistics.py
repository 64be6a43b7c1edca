"""Statistics against hand-made masks."""

import math

import pytest
import torch

from visionlab.masking import create_mask, mask_statistics
from visionlab.masking.statistics import keep_rate, neighbour_rate, periodogram, radial_profile


def test_neighbours_of_a_known_picture():
    visible = torch.tensor([[[1, 1, 0], [0, 1, 0], [0, 0, 1]]], dtype=torch.bool)
    pairs, inside = neighbour_rate(visible)  # two pairs, four visible, 2 + 3 + 4 + 2 neighbours
    assert pairs == pytest.approx(2 / 8)
    assert inside == pytest.approx(4 / 11)


def test_checkerboard_has_all_energy_in_the_corner():
    rows, columns = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    board = ((rows + columns) % 2 == 0)[None]
    power = periodogram(board)
    assert power[4, 4] == pytest.approx(63)  # all of it: the mean off DC is 1
    assert power.sum() == pytest.approx(63)
    assert neighbour_rate(board)[0] == 0
    frequency, energy = radial_profile(power)
    assert energy[-1] > 0
    assert energy[:-1].abs().max() < 1e-9
    assert frequency[0] == pytest.approx(0.17)


def test_ring_means_match_a_loop():
    power = torch.rand(6, 9, dtype=torch.float64)
    frequency, energy = radial_profile(power, width=0.2, start=0.0)
    for centre, mean in zip(frequency.tolist(), energy.tolist()):
        ring = []
        for i in range(6):
            for j in range(9):
                f = math.hypot(min(i, 6 - i) / 6, min(j, 9 - j) / 9)
                if f > 0 and centre - 0.1 <= f < centre + 0.1:
                    ring.append(power[i, j].item())
        assert mean == pytest.approx(sum(ring) / len(ring))


def test_rates_of_the_drawn_masks():
    mask = create_mask("random", (6, 7), 0.5)
    stats = mask_statistics(mask, samples=64, key=(3,))
    visible = mask(64, key=(3,)).visible
    assert torch.equal(stats.keep_rate, keep_rate(visible))
    assert stats.keep_rate.mean() == pytest.approx(0.5)
    assert stats.samples == 64
    assert stats.periodogram.shape == (6, 7)
    assert stats.neighbour_rate < stats.neighbour_rate_inside
