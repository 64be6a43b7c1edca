import numpy as np
import pytest

from visionlab.rotation.comparison import (
    Method,
    all_methods,
    compare,
    recorded_case,
    scene_case,
)
from visionlab.rotation.flow import DenseInverseSearch, LucasKanade, Tracks
from visionlab.rotation.sequences import read_sequence
from visionlab.rotation.sequences.base import Sequence


def test_every_installed_rival_stands_beside_ours() -> None:
    names = [m.name for m in all_methods()]
    assert names[:4] == ["ours irls", "ours joint", "ours vote only", "ours fast"]
    assert {"zero", "published", "least squares", "huber", "two point", "homography"} <= set(names)
    assert {"essential ransac", "essential magsac"} <= set(names)


@pytest.mark.parametrize("flow", [LucasKanade(), DenseInverseSearch()], ids=["lk", "dis"])
def test_all_see_the_same_motion_and_find_it(flow, clip) -> None:
    case = recorded_case(read_sequence(clip), flow, limit=4)
    rows = {row["method"]: row for row in compare([case], all_methods())}
    assert rows["ours irls"]["mean deg"] < 0.03
    assert rows["two point"]["mean deg"] < 0.1
    assert rows["published"]["mean deg"] < 0.25
    assert rows["zero"]["mean deg"] > 0.3
    assert all(row["frames"] == 4 and row["ms median"] > 0 for row in rows.values())


def test_a_method_without_an_answer_scores_zero_rotation_and_is_counted() -> None:
    case = scene_case("S0", count=3)

    def fails(camera):
        return lambda motion: np.full(3, np.nan)

    methods = [Method("fails", fails), *[m for m in all_methods() if m.name == "zero"]]
    failing, zero = compare([case], methods)
    assert failing["no answer"] == 3
    assert failing["mean deg"] == zero["mean deg"]


def test_pairs_are_those_asked_for(clip) -> None:
    sequence = read_sequence(clip)
    case = recorded_case(sequence, LucasKanade(), limit=3, stride=4)
    assert [p.truth.tolist() for p in case.pairs] == sequence.truth.steps[[0, 4, 8]].tolist()
    whole = recorded_case(sequence, LucasKanade())
    assert len(whole.pairs) == 11
    assert np.array_equal(case.pairs[1].motion.points1, whole.pairs[4].motion.points1,
                          equal_nan=True)  # fmt: skip
    assert isinstance(case.pairs[0].motion, Tracks)


def test_stored_flows_are_used_where_there_are_some(clip, tmp_path) -> None:
    sequence = read_sequence(clip)
    files = []
    for i in range(len(sequence.truth) - 1):
        np.save(tmp_path / f"{i}.npy", np.full((136, 240, 2), i, np.float32))
        files.append(tmp_path / f"{i}.npy")
    stored = Sequence("stored", sequence.camera, sequence.truth, flows=tuple(files))
    case = recorded_case(stored, LucasKanade(), limit=2, stride=3)
    assert [float(p.motion[0, 0, 0]) for p in case.pairs] == [0, 3]


def test_no_pair_is_an_error(clip) -> None:
    with pytest.raises(ValueError, match="no frame pair"):
        recorded_case(read_sequence(clip), LucasKanade(), limit=0)
