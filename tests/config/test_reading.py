"""Files, their bases and interpolation."""

import pytest

from visionlab import config as configs
from visionlab.config import ConfigError


def test_bases_are_merged_in_order_and_the_file_wins(write):
    write("a.yaml", seed=1, trainer={"max_epochs": 1, "precision": "32"})
    write("b.yaml", seed=2, trainer={"max_epochs": 2})
    path = write(_base_=["a.yaml", "b.yaml"], trainer={"max_epochs": 3})
    assert configs.read(path) == {"seed": 2, "trainer": {"max_epochs": 3, "precision": "32"}}


def test_circular_bases_are_refused(write):
    write("a.yaml", _base_="run.yaml")
    with pytest.raises(ConfigError, match=r"_base_ refers back to run\.yaml"):
        configs.read(write(_base_="a.yaml"))


def test_missing_file_names_the_nearest(write):
    path = write("quickstart.yaml", seed=1)
    with pytest.raises(
        ConfigError, match=r"no file 'quickstrat\.yaml'.*Did you mean 'quickstart\.yaml'"
    ):
        configs.read(path.with_name("quickstrat.yaml"))


@pytest.mark.parametrize("text", ["a: [1, 2", "a: 1\na: 2", "- 1\n- 2", "\x00", "a: ${b}"])
def test_what_is_no_config_gets_one_sentence(tmp_path, text):
    path = tmp_path / "bad.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as error:
        configs.read(path)
    assert len(error.value.errors) == 1


def test_interpolation_is_resolved(write):
    assert configs.read(write(seed=3, output="runs/${seed}"))["output"] == "runs/3"
