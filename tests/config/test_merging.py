"""One config over another, and the differences between two."""

import logging

from visionlab import config as configs


def test_naming_another_component_drops_the_old_ones_keys(write, caplog):
    caplog.set_level(logging.INFO, "visionlab")
    path = write(task={"model": {"mask": {"name": "green", "f0": 0.2}, "x": 1}})
    for text in ("task.model.mask=red", "task.model.mask.name=red", "task.model.mask={name: red}"):
        assert configs.read(path, [text])["task"]["model"] == {"mask": {"name": "red"}, "x": 1}
    assert "task.model.mask is now red: dropped f0" in caplog.text
    same = configs.read(path, ["task.model.mask={name: green, ratio: 0.5}"])["task"]["model"]
    assert same["mask"] == {"name": "green", "f0": 0.2, "ratio": 0.5}


def test_differences_name_every_change():
    old = {"a": {"b": 1, "c": 2}, "d": 3}
    assert configs.differences(old, old) == []
    assert configs.differences(old, {"a": {"b": 5}, "d": 3, "e": 4}) == [
        "a.b: 1 -> 5",
        "a.c: 2 -> (absent)",
        "e: (absent) -> 4",
    ]


def test_merging_changes_neither_side():
    base, top = {"a": {"b": 1}, "c": [1]}, {"a": {"d": 2}, "c": [2]}
    assert configs.merge(base, top) == {"a": {"b": 1, "d": 2}, "c": [2]}
    assert base == {"a": {"b": 1}, "c": [1]}
    assert top == {"a": {"d": 2}, "c": [2]}
