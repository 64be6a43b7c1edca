from visionlab.figures import in_turn, timings


def test_arms_are_called_in_turn_and_the_first_round_is_not_timed():
    calls = []
    ticks = iter(range(1000))
    arms = {name: lambda name=name: calls.append(name) for name in "ab"}
    seconds = in_turn(arms, 2, clock=lambda: float(next(ticks)))
    assert calls == ["a", "b", "a", "b", "a", "b"]
    assert seconds == {"a": [1.0, 1.0], "b": [1.0, 1.0]}


def test_ratios_are_of_medians():
    ours, theirs = timings({"ours": [1.0, 2.0, 9.0], "theirs": [4.0, 4.0, 5.0]}, base="theirs")
    assert ours.values == {"ms": 2000.0, "least": 1000.0, "ratio": 0.5}
    assert ours.spread == {"ms": [1000.0, 9000.0]}
    assert theirs.values["ratio"] == 1.0
