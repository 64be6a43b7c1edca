"""Keyed draws: pure, split-invariant, well distributed, without the global generators."""

import random

import numpy as np
import pytest
import torch

from visionlab.masking.keys import NORMAL_SCALE, GeneratorDraws, IndexedDraws, fold

CPU = torch.device("cpu")


def test_fold_tells_all_tuples_apart():
    keys = [(a, b, c) for a in range(8) for b in range(8) for c in range(8)]
    keys += [(a, b) for a in range(20) for b in range(20)] + [(1 << 32,), (1,), (-1,), (1, 2, 3, 0)]
    assert len({fold(k) for k in keys}) == len(keys)
    # also in the 32 bits that a CPU generator reads
    assert len({(fold(k) ^ fold(k) >> 32) & 0xFFFFFFFF for k in keys}) == len(keys)
    assert fold(3) == fold((3,)) == fold(np.array([3]))


@pytest.mark.parametrize("key", [(0.5, 1), "ab", (), None, ("1",)])
def test_fold_names_a_wrong_key(key):
    with pytest.raises(TypeError, match="tuple of integers"):
        fold(key)


def test_generator_draws_are_a_function_of_the_key():
    a, b = (GeneratorDraws((1, 2, 3), 5, CPU) for _ in range(2))
    assert torch.equal(a.uniform(7), b.uniform(7))
    assert torch.equal(a.normal(7), b.normal(7))
    assert a.shared() == b.shared()
    assert not torch.equal(a.uniform(7), GeneratorDraws((1, 2, 4), 5, CPU).uniform(7))


def test_indexed_draws_do_not_depend_on_the_split():
    index = torch.tensor([5, 0, 123456789012, 7, 3])
    whole = IndexedDraws((1, 2), index)
    u, z, v = whole.uniform(9), whole.normal(11), whole.uniform(3)
    for i in range(5):
        one = IndexedDraws((1, 2), index[i : i + 1])
        assert torch.equal(one.uniform(9)[0], u[i])
        assert torch.equal(one.normal(11)[0], z[i])
        assert torch.equal(one.uniform(3)[0], v[i])
    assert whole.shared() == IndexedDraws((1, 2), index[:1]).shared()


def test_indexed_draws_match_a_plain_python_hash():
    """The tensor arithmetic against SplitMix64 in Python integers."""
    word = (1 << 64) - 1

    def mix(x):
        x = ((x ^ x >> 30) * 0xBF58476D1CE4E5B9) & word
        x = ((x ^ x >> 27) * 0x94D049BB133111EB) & word
        return x ^ x >> 31

    golden = 0x9E3779B97F4A7C15
    start = mix((17 * golden + fold((4, 5))) & word)
    expected = [(mix((start + (j + 1) * golden) & word) >> 11) * 2.0**-53 for j in range(6)]
    assert IndexedDraws((4, 5), torch.tensor([17])).uniform(6)[0].tolist() == expected


def test_indexed_numbers_are_uniform_and_normal():
    draws = IndexedDraws((0, 0), torch.arange(2000))
    uniform, normal = draws.uniform(100).flatten(), draws.normal(101).flatten() / NORMAL_SCALE
    counts = torch.histc(uniform, 50, 0, 1)
    expected = len(uniform) / 50
    assert ((counts - expected) ** 2 / expected).sum() < 49 + 4 * (2 * 49) ** 0.5  # chi-square
    assert abs(normal.mean()) < 4 / len(normal) ** 0.5
    assert abs(normal.var() - 1) < 0.01
    assert abs((normal**4).mean() - 3) < 0.06  # kurtosis of a Gaussian
    rows = IndexedDraws((0, 0), torch.arange(2000)).normal(2) / NORMAL_SCALE
    assert abs((rows[:, 0] * rows[:, 1]).mean()) < 4 / 2000**0.5
    assert abs((rows[1:, 0] * rows[:-1, 0]).mean()) < 4 / 2000**0.5


def test_global_generators_are_untouched():
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    GeneratorDraws((1,), 3, CPU).normal(5)
    IndexedDraws((1,), torch.arange(3)).normal(5)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()
    assert (before[2] == np.random.get_state()[1]).all()  # noqa: NPY002
