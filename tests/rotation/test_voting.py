import numpy as np
import pytest

from visionlab.rotation.lines import Grid, lines_from_plane
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
    with pytest.raises(ValueError, match=r"weights of shape \(3,\) do not fit lines of \(4, 4\)"):
        vote(lines, np.ones(3, np.uint32), bins=3)
    with pytest.raises(ValueError, match=r"no search 'pyramd'. Did you mean 'pyramid'"):
        vote(lines, bins=3, search="pyramd")
    with pytest.raises(ValueError, match=r"no voting backend 'numbs'. Did you mean 'numba'"):
        vote(lines, bins=3, backend="numbs")
