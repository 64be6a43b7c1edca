import os

import pytest

from visionlab.tasks.launch import launched, trainer_arguments
from visionlab.tasks.stopping import StopSignals
from visionlab.tasks.training import build_trainer


@pytest.mark.skipif(bool(launched()), reason="started by torchrun or srun")
def test_more_processes_than_cores_are_refused():
    cores = max(os.cpu_count(), 2)
    trainer = {"accelerator": "cpu", "devices": cores + 1}
    with pytest.raises(ValueError, match=f"devices is {cores + 1}, without a GPU at most {cores}"):
        trainer_arguments(trainer, unused_parameters=False)


def test_what_lightning_refuses_is_told_as_a_mistake(tmp_path):
    config = {"trainer": {"accelerator": "cpu", "devices": 0}}
    with pytest.raises(ValueError, match=r"trainer: .*devices=0.*not a valid input"):
        build_trainer(config, tmp_path, StopSignals())
