"""Seeds from keys, and global generators as they were."""

import random

import numpy as np
import pytest
import torch

from visionlab.data.randomness import keyed_randomness, mix, seed_all


def test_mix_spreads_every_part_of_the_key():
    seeds = {mix(a, b, c) for a in range(8) for b in range(8) for c in range(8)}
    assert len(seeds) == 512
    assert mix(1) != mix(1 + 2**32)
    assert max(seeds) < 2**32


def test_keyed_block_restores_after_an_error():
    state = torch.get_rng_state()

    def fails():
        with keyed_randomness(1):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails()
    assert torch.equal(state, torch.get_rng_state())


def test_seed_all_repeats():
    seed_all(1, 2)
    a = torch.rand(3)
    seed_all(1, 2)
    assert torch.equal(a, torch.rand(3))


def draws():
    return float(torch.rand(())), float(np.random.rand()), random.random()  # noqa: NPY002


def test_a_block_draws_from_its_key_and_the_draws_around_it_stay():
    seed_all(3)
    expected = draws(), draws()
    seed_all(3)
    before = draws()
    with keyed_randomness(1, 2):
        inside = draws()
    assert (before, draws()) == expected
    with keyed_randomness(1, 2):
        assert draws() == inside
    with keyed_randomness(1, 3):
        assert not set(draws()) & set(inside)
