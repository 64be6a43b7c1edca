"""Where components stand in a config, and what they name."""

import pytest

from visionlab import config as configs
from visionlab.config import ConfigError


@pytest.mark.parametrize("target", ["no_such_module.Class", f"{__name__}.Missing", "nodots"])
def test_wrong_target_is_explained(target):
    with pytest.raises(ConfigError, match="_target_"):
        configs.build({"_target_": target}, key="head")


def test_components_are_found_parents_first_under_singular_and_plural_keys():
    config = {
        "task": {"name": "multitask", "model": {"name": "m", "heads": {"a": "linear"}}},
        "data": {"name": "images", "datasets": [{"name": "x"}], "transform": None},
        "tasks": ["not", "components"],
    }
    assert list(configs.components(config)) == [
        ("task", "task", config["task"]),
        ("task.model", "model", config["task"]["model"]),
        ("task.model.heads.a", "head", {"name": "linear"}),
        ("data", "data", config["data"]),
        ("data.datasets.0", "dataset", {"name": "x"}),
    ]


@pytest.mark.parametrize("key", sorted(configs.COMPONENT_KEYS))
def test_every_component_key_has_a_registry_with_names(key):
    assert configs.registry(key).names()
    assert configs.registry(key).kind == key
