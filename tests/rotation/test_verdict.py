import numpy as np

from visionlab.rotation import verdict
from visionlab.rotation.voting import vote


def test_chance_votes_bound_what_unrelated_lines_reach():
    rng = np.random.default_rng(0)
    for count, bins in ((100, 141), (576, 141), (5184, 141), (576, 61)):
        limit = verdict.chance_votes(count, bins)
        for _ in range(5):
            slope = rng.uniform(-0.6, 0.6, (count, 2))
            middle = rng.normal(bins / 2, bins / 4, (count, 2))
            start = middle - slope * bins / 2
            lines = np.stack([start[:, 0], slope[:, 0], start[:, 1], slope[:, 1]], 1)
            assert vote(lines, bins=bins).votes <= limit
        assert limit < 0.05 * count + 10


def test_near_border():
    assert verdict.near_border((1 * 141 + 70) * 141 + 70, 141)
    assert verdict.near_border((70 * 141 + 70) * 141 + 139, 141)
    assert not verdict.near_border((2 * 141 + 70) * 141 + 138, 141)


def test_loose_covariances():
    assert verdict.is_loose(None)
    assert not verdict.is_loose(np.eye(3) * 1e-8)
    assert verdict.is_loose(np.diag([1e-8, 1e-8, 1.1 * verdict.MAX_STD**2]))
    assert not verdict.is_loose(np.eye(3) * 0.9 * verdict.MAX_STD**2)  # only the trace is over it
