"""Where a run stands, by what lies in its folder."""

import pytest
import yaml

from visionlab.config import ConfigError
from visionlab.tasks.run_folder import progress


@pytest.fixture
def config(tmp_path):
    task = {"name": "masked_pretraining"}
    return {"task": task, "output": str(tmp_path / "run"), "seed": 1, "trainer": {"max_epochs": 2}}


def begin(config, folder, *names):
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    for name in names:
        (folder / name).touch()


def test_new_begun_finished(config, tmp_path):
    assert progress(config) == "new"
    begin(config, tmp_path / "run")
    assert progress(config) == "new"  # failed before its first save
    begin(config, tmp_path / "run", "last.ckpt")
    assert progress(config) == "begun"
    begin(config, tmp_path / "run", "results.json")
    assert progress(config) == "finished"


def test_another_runs_folder_is_refused_with_what_differs(config, tmp_path):
    begin(config, tmp_path / "run", "last.ckpt")
    other = {**config, "seed": 2, "trainer": {"max_epochs": 3}}
    with pytest.raises(ConfigError) as error:
        progress(other)
    assert error.value.errors[:2] == ["seed: 1 -> 2", "trainer.max_epochs: 2 -> 3"]
    assert "resume the old run (tools/train.py " in error.value.errors[2]


@pytest.mark.parametrize("name", ["last.ckpt", "results.json", "config.yaml"])
def test_files_of_something_else_are_not_replaced(config, tmp_path, name):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).write_text("a: 1\n")
    with pytest.raises(ConfigError, match="was written by something else"):
        progress(config)


def test_a_failed_start_does_not_bind_the_next_one(config, tmp_path):
    begin(config, tmp_path / "run")
    assert progress({**config, "seed": 2}) == "new"
