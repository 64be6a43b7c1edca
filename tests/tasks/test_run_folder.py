"""Where a run stands, by what lies in its folder."""

import pytest
import yaml

from visionlab.config import ConfigError
from visionlab.tasks.run_folder import progress


@pytest.fixture
def config(tmp_path):
    return {"output": str(tmp_path / "run"), "seed": 1, "trainer": {"max_epochs": 2}}


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


def test_a_failed_start_does_not_bind_the_next_one(config, tmp_path):
    begin(config, tmp_path / "run")
    assert progress({**config, "seed": 2}) == "new"
