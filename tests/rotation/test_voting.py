import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ranks import on_ranks
from visionlab.rotation.baselines import published, published_points
from visionlab.rotation.estimator import RotationEstimator
from visionlab.rotation.lines import Grid, lines_from_plane
from visionlab.rotation.scenes import make_scene
from visionlab.rotation.voting import quantise_weights, vote


def test_the_rule_by_hand():
    # bins 3; two lines meet in (1, 1, 1), one of them alone crosses the rest of its path
    lines = np.array(
        [[1.2, 0.0, 1.2, 0.0], [0.1, 1.0, 0.1, 1.0], [np.nan, 0, 0, 0], [9.0, 0, 1, 0]]
    )
    cell, votes = vote(lines, bins=3, backend="numpy")
    assert (cell, votes) == ((1 * 3 + 1) * 3 + 1, 2)


def test_ties_go_to_the_lowest_flat_cell_and_weights_decide():
    lines = np.array(
        [[2.5, 0.0, 0.5, 0.0], [0.5, 0.0, 2.5, 0.0]]
    )  # constant columns (2,0,*), (0,2,*)
    assert vote(lines, bins=3, backend="numpy") == ((0 * 3 + 2) * 3 + 0, 1)
    heavy = np.array([7, 3], np.uint32)
    assert vote(lines, heavy, bins=3, backend="numpy") == ((2 * 3 + 0) * 3 + 0, 7)
    assert vote(lines, np.zeros(2, np.uint32), bins=3, backend="numpy") == (-1, 0)


def test_edges_of_the_box():
    inside, outside = np.nextafter(3.0, 0), 3.0
    lines = np.array([[inside, 0.0, 0.0, 0.0], [outside, 0.0, 0.0, 0.0], [-0.0, 0.0, 0.0, 0.0]])
    assert vote(lines[:1], bins=3, backend="numpy") == (2 * 9, 1)
    assert vote(lines[1:2], bins=3, backend="numpy") == (-1, 0)
    assert vote(lines[2:], bins=3, backend="numpy") == (0, 1)


def test_batch_and_shapes():
    lines = np.random.default_rng(0).uniform(-1, 4, (5, 30, 4))
    batch = vote(lines, bins=5, backend="numpy")
    singles = [vote(rows, bins=5, backend="numpy") for rows in lines]
    assert batch.cell.tolist() == [int(s.cell) for s in singles]
    assert batch.votes.tolist() == [int(s.votes) for s in singles]


def test_identity_wins_for_equal_frames():
    plane = np.random.default_rng(0).uniform(-0.9, 0.9, (100, 2))  # narrower: ties in roll
    grid = Grid(1e-3, 141)
    for geometry in ("exact", "linear"):
        lines = lines_from_plane(plane, plane, grid=grid, geometry=geometry)
        cell, votes = vote(lines, bins=grid.bins, backend="numpy")
        assert votes == 100
        np.testing.assert_array_equal(grid.rotvec(cell, geometry), np.zeros(3))


def test_quantised_weights():
    assert quantise_weights(np.array([0.0, 0.5, 1.0])).tolist() == [0, 128, 255]
    assert quantise_weights(np.zeros(3)).tolist() == [0, 0, 0]
    assert quantise_weights(np.array([3.0, 3.0])).dtype == np.uint32


def test_messages():
    lines = np.zeros((4, 4))
    with pytest.raises(
        ValueError, match=r"lines must have shape \(N, 4\) or \(B, N, 4\), got \(4, 3\)"
    ):
        vote(lines[:, :3], bins=3)
    with pytest.raises(ValueError, match=r"weights of shape .1, 3. do not fit lines of shape"):
        vote(lines, np.ones(3, np.uint32), bins=3)
    with pytest.raises(ValueError, match=r"no search 'pyramd'. Did you mean 'pyramid'"):
        vote(lines, bins=3, search="pyramd")
    with pytest.raises(ValueError, match=r"no voting backend 'numbs'. Did you mean 'numba'"):
        vote(lines, bins=3, backend="numbs")


def random_lines(rng, count, bins, steep=1.0):
    """Lines of which many cross the box, some are NaN and some run far outside."""
    slope = rng.uniform(-steep, steep, (count, 2))
    middle = rng.normal(bins / 2, bins / 6, (count, 2))
    start = middle - slope * bins / 2
    lines = np.stack([start[:, 0], slope[:, 0], start[:, 1], slope[:, 1]], 1)
    lines[rng.random(count) < 0.02] = np.nan
    lines[rng.random(count) < 0.02, 0] *= 1e300
    return lines


@pytest.mark.parametrize("search", ["full", "pyramid"])
@pytest.mark.parametrize("bins", [3, 5, 21, 61])
@pytest.mark.parametrize("weighted", [False, True])
def test_numba_is_bit_equal_to_the_oracle(search, bins, weighted):
    rng = np.random.default_rng([bins, weighted])
    for count, steep in ((1, 1.0), (40, 0.5), (300, 3.0), (3000, 1.0)):
        lines = random_lines(rng, count, bins, steep)
        weights = rng.integers(0, 256, count).astype(np.uint32) if weighted else None
        expected = vote(lines, weights, bins=bins, backend="numpy")
        assert vote(lines, weights, bins=bins, search=search) == expected


@pytest.mark.parametrize("search", ["full", "pyramid"])
def test_counters_wider_than_16_bits(search):
    lines = np.tile([1.5, 0.0, 1.5, 0.0], (300, 1))
    heavy = np.full(300, 255, np.uint32)
    assert vote(lines, heavy, bins=3, search=search) == ((1 * 3 + 1) * 3, 76500)


@pytest.mark.parametrize("search", ["full", "pyramid"])
def test_threads_change_nothing(search):
    rng = np.random.default_rng(3)
    lines = np.stack([random_lines(rng, 200, 31) for _ in range(7)])
    weights = rng.integers(0, 3, (7, 200)).astype(np.uint32)
    one = vote(lines, weights, bins=31, search=search)
    two = vote(lines, weights, bins=31, search=search, num_threads=2)
    assert one.cell.tolist() == two.cell.tolist()
    assert one.votes.tolist() == two.votes.tolist()
    single = vote(lines[0], weights[0], bins=31, search=search, num_threads=2)
    assert (single.cell, single.votes) == (one.cell[0], one.votes[0])


def test_nothing_to_vote():
    nothing = np.full((5, 4), np.nan)
    for search in ("full", "pyramid"):
        assert vote(nothing, bins=5, search=search) == (-1, 0)
        assert vote(nothing, bins=5, search=search, num_threads=2) == (-1, 0)
        assert vote(np.empty((0, 4)), bins=5, search=search) == (-1, 0)


@pytest.mark.parametrize("scenario", ["S0", "S2", "S5"])
def test_searches_agree_on_flow(scenario):
    for index in range(4):
        scene = make_scene(scenario, index, seed=77)
        points = published_points(scene.camera)
        flow = scene.flow[::15, ::15].reshape(-1, 2)
        plane = scene.camera.normalise(points), scene.camera.normalise(points + flow)
        grid = Grid(1e-3, 141)
        for geometry in ("exact", "linear"):
            lines = lines_from_plane(*plane, grid=grid, geometry=geometry)
            full = vote(lines, bins=141, search="full")
            assert full == vote(lines, bins=141, backend="numpy")
            assert full == vote(lines, bins=141, search="pyramid")


@given(st.integers(0, 2**32 - 1), st.integers(1, 24), st.integers(0, 120))
@settings(max_examples=60, deadline=None)
def test_branch_and_bound_is_exact(seed, half, count):
    rng = np.random.default_rng(seed)
    lines = random_lines(rng, count, 2 * half + 1, rng.uniform(0, 4))
    lines = np.round(lines * 4) / 4  # on the quarter grid ties and border hits abound
    weights = rng.integers(0, 4, count).astype(np.uint32)
    expected = vote(lines, weights, bins=2 * half + 1, backend="numpy")
    assert vote(lines, weights, bins=2 * half + 1, search="pyramid") == expected
    assert vote(lines, weights, bins=2 * half + 1, search="full") == expected


@pytest.mark.slow
def test_published_rule_on_a_thousand_flows():
    """The slow specification (all votes, then the mode) and the fast vote give the same winner."""
    grid = Grid.for_range(1e-3, 0.07, "linear")
    rng = np.random.default_rng(20)
    bases = [make_scene(f"S{number % 6}", number, seed=20) for number in range(12)]
    for number in range(1000):
        base = bases[number % 12]
        points = published_points(base.camera)
        # vary one flow into many: another piece of it, another rotation, fresh noise
        flow = base.flow[::15, ::15].reshape(-1, 2) * rng.uniform(-1.2, 1.2)
        flow += rng.normal(0, 2.0, 2) + rng.normal(0, 0.3, flow.shape)
        expected = published(points, points + flow, base.camera)
        plane = base.camera.normalise(points), base.camera.normalise(points + flow)
        lines = lines_from_plane(*plane, grid=grid, geometry="linear")
        cell, _ = vote(lines, bins=grid.bins, search="full")
        np.testing.assert_allclose(grid.rotvec(cell, "linear"), expected, atol=1e-12)


def batch_of_flows(rank: int) -> int:
    import torch

    scene = make_scene("S0", 0)
    RotationEstimator(scene.camera, num_threads=2).batch(np.stack([scene.flow] * 2))
    return torch.get_num_threads()


@pytest.mark.slow
def test_the_threads_of_torch_stay_as_they_are() -> None:
    """Numba's, when they start, set OpenMP's number, by which torch's small steps got ten times
    slower in processes that had been given one thread.
    """
    assert on_ranks(batch_of_flows, ranks=1) == [1]
