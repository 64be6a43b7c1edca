import numpy as np
import pytest

from visionlab.data.schedule import StepSchedule

LENGTHS, SIZES = {"a": 10, "b": 4, "c": 1000}, {"a": 3, "b": 3, "c": 2}


def schedule(**options):
    return StepSchedule(LENGTHS, SIZES, **options)


def test_joint_has_every_task_in_every_step():
    for step in (0, 1, 17):
        picks = schedule().picks(step)
        assert [task for task, _ in picks] == ["a", "b", "c"]
        assert [len(keys) for _, keys in picks] == [3, 3, 2]


def test_each_sample_once_before_any_again():
    joint = schedule()
    keys = [key for step in range(20) for key in joint.picks(step)[0][1]]  # 60 = 6 epochs of a
    for epoch in range(6):
        assert sorted(i for e, i in keys if e == epoch) == list(range(10))
    assert keys[:10] != keys[10:20]


def test_sampled_follows_the_temperature():
    for alpha, expected in ((0.0, [1 / 3] * 3), (1.0, np.array([10, 4, 1000]) / 1014)):
        sampled = schedule(mode="sampled", alpha=alpha)
        tasks = [sampled.draws(step)[0][0] for step in range(3000)]
        share = [tasks.count(t) / 3000 for t in "abc"]
        assert np.allclose(share, expected, atol=0.03)


def test_sampled_is_a_function_of_seed_and_step():
    forward = [schedule(mode="sampled", seed=3).picks(s) for s in range(40)]
    late = schedule(mode="sampled", seed=3)
    assert [late.picks(s) for s in reversed(range(40))][::-1] == forward
    assert [schedule(mode="sampled", seed=4).picks(s) for s in range(40)] != forward


def test_draws_are_counted_over_chunks(monkeypatch):
    monkeypatch.setattr("visionlab.data.schedule._CHUNK", 7)
    sampled = schedule(mode="sampled", tasks_per_step=2)
    counts = dict.fromkeys("abc", 0)
    for step in range(20):
        for task, before in sampled.draws(step):
            assert before == counts[task]
            counts[task] += 1


def test_lengths_of_an_epoch_and_of_a_step():
    assert schedule().steps_of_an_epoch() == 500
    assert schedule(mode="sampled", tasks_per_step=2).steps_of_an_epoch() == 253
    assert schedule().images_per_step(2) == 4
    assert schedule(mode="sampled", alpha=0.0).images_per_step(1) == 3


def test_a_step_holds_at_least_one_pick():
    with pytest.raises(ValueError, match="tasks_per_step is 0"):
        schedule(mode="sampled", tasks_per_step=0)


def test_alpha_is_a_share():
    for alpha in (-1.0, 2.0, float("nan")):
        with pytest.raises(ValueError, match=f"alpha is {alpha}; expected 0"):
            schedule(mode="sampled", alpha=alpha)
