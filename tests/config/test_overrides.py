"""``key=value`` texts over a config."""

import pytest

from visionlab import config as configs
from visionlab.config import ConfigError


@pytest.mark.parametrize(
    ("text", "where", "value"),
    [
        ("trainer.max_epochs=3", ("trainer", "max_epochs"), 3),
        ("trainer.lr=1e-4", ("trainer", "lr"), 1e-4),
        ("task.expr=a=b=c", ("task", "expr"), "a=b=c"),
        ("task.sizes=[1,2,[3,4]]", ("task", "sizes"), [1, 2, [3, 4]]),
        ("task.limit=null", ("task", "limit"), None),
        ("task.a.b.c=true", ("task", "a"), {"b": {"c": True}}),
        ("seed=0", ("seed",), 0),
        ("task.text=", ("task", "text"), None),
        ("data.items.1.x=5", ("data", "items"), [{"x": 0}, {"x": 5}]),
    ],
)
def test_overrides(write, text, where, value):
    path = write(trainer={}, task={}, data={"items": [{"x": 0}, {"x": 1}]})
    found = configs.read(path, [text])
    for key in where:
        found = found[key]
    assert found == value


@pytest.mark.parametrize("text", ["trainer", "=3", "a..b=1", "trainr.max_epochs=3", "seed.x=1"])
def test_malformed_overrides_are_reported_together(write, text):
    with pytest.raises(ConfigError) as error:
        configs.read(write(seed=1, trainer={}), [text, "nonsense"])
    assert len(error.value.errors) == 2


def test_a_component_given_by_name_alone_takes_further_keys(write):
    path = write(task={"model": {"mask": "green"}})
    model = configs.read(path, ["task.model.mask.ratio=0.6"])["task"]["model"]
    assert model["mask"] == {"name": "green", "ratio": 0.6}
