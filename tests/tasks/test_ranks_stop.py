"""A signal to one of two processes: both stop at the same step, saved, and go on exactly."""

import copy
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.ranks import new_meeting, on_ranks
from tests.tasks.test_ranks import config, write_images
from visionlab import checkpoint
from visionlab.tasks import launch, saving, stopping, training
from visionlab.tasks.base import Task
from visionlab.tasks.curves import read_curves

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.filterwarnings("ignore")]


def made(folder: Path, name: str) -> dict[str, Any]:
    node = copy.deepcopy(config(folder, name, "pretraining", ranks=2, strategy="ddp"))
    node["task"]["picture_every_epochs"] = 0
    node["trainer"]["checkpoint_every_n_steps"] = 100
    return node


def signalled(rank: int, folder: Path) -> tuple[int | None, int]:
    """Exit status of this rank, and the step at which it stopped."""
    start, steps = Task.on_train_batch_start, []

    def asked(self, batch, batch_idx):
        start(self, batch, batch_idx)
        steps.append(self.global_step)
        if rank == 1 and self.global_step == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    new_meeting()
    training.run(made(folder, "whole"))
    Task.on_train_batch_start = asked
    saving._AGREE_STEPS = 1  # the run has but a few
    status = None
    new_meeting()
    try:
        training.run(made(folder, "parts"))
    except stopping.Interrupted as stopped:
        status = stopped.code
        launch.part()
    Task.on_train_batch_start = start
    new_meeting()
    training.run(made(folder, "parts"), folder / "parts" / "last.ckpt")
    return status, steps[-1]


def test_a_signal_to_one_rank_stops_all_at_the_same_step(tmp_path):
    write_images(tmp_path)
    assert on_ranks(signalled, tmp_path, meetings=3) == [(75, 1), (75, 1)]
    curves = [read_curves(tmp_path / n / "metrics.csv") for n in ("whole", "parts")]
    assert curves[0] == curves[1]
    states = [checkpoint.read(tmp_path / n / "last.ckpt")["state_dict"] for n in ("whole", "parts")]
    assert all((v == states[1][k]).all() for k, v in states[0].items())
