"""A run that dies right behind any of its saves goes on exactly, validations included."""

import copy
import os
import signal
from pathlib import Path
from types import SimpleNamespace

import lightning as L
import pytest
import torch

from visionlab import checkpoint
from visionlab.tasks import saving, stopping, training
from visionlab.tasks.curves import CurveLogger, drop_after, read_curves

pytestmark = pytest.mark.filterwarnings(
    "ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"
)


class Killed(BaseException):
    pass


@pytest.fixture
def probing(tiny_config):
    """Two epochs of five steps with a validation after each; saved at every step."""
    made = copy.deepcopy(tiny_config)
    backbone = made["task"]["model"]["backbone"]
    model = {"name": "image_classifier", "num_classes": 4, "backbone": backbone,
             "freeze_backbone": True, "norm": "batch"}  # fmt: skip
    made["task"] = {"name": "linear_probing", "model": model}
    made["data"]["datasets"]["val"] = made["data"]["datasets"]["train"]
    made["trainer"] |= {"max_epochs": 2, "checkpoint_every_n_steps": 1}
    return made


def ends_as(run: Path, whole: Path) -> bool:
    weights = [checkpoint.read(f / "last.ckpt")["state_dict"] for f in (run, whole)]
    assert weights[0].keys() == weights[1].keys()
    same = all(torch.equal(v, weights[1][k]) for k, v in weights[0].items())
    return same and read_curves(run / "metrics.csv") == read_curves(whole / "metrics.csv")


@pytest.mark.parametrize("first", [1, 2, 3])
@pytest.mark.parametrize(
    "trainer", [{}, {"val_check_interval": 2, "accumulate_grad_batches": 2}], ids=["plain", "mixed"]
)
@pytest.mark.slow
def test_every_save_is_a_place_to_go_on_from(probing, trainer, first, tmp_path, monkeypatch):
    probing["trainer"] |= trainer
    whole = training.run({**probing, "output": str(tmp_path / "whole")})
    save, number = L.Trainer.save_checkpoint, first
    while True:
        saves = iter(range(1, number))

        def dies(self, *args, saves=saves, **kwargs):
            save(self, *args, **kwargs)
            if next(saves, None) is None:
                raise Killed

        config = {**probing, "output": str(tmp_path / f"run{number}")}
        monkeypatch.setattr(L.Trainer, "save_checkpoint", dies)
        try:
            training.run(config)
            break
        except Killed:
            monkeypatch.setattr(L.Trainer, "save_checkpoint", save)
        run = training.run(config, resume=Path(config["output"]) / "last.ckpt")
        assert ends_as(run, whole), f"save {number}"
        number += 3
    assert number > 6  # that many saves there are


def test_the_replaced_checkpoint_is_kept(probing):
    output = training.run(probing)
    steps = [checkpoint.read(output / n)["global_step"] for n in ("previous.ckpt", "last.ckpt")]
    assert steps == [10, 10]  # before and behind the last validation


@pytest.mark.parametrize(
    ("signum", "status"), [(signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGINT, 130)]
)
def test_a_signal_stops_between_steps_with_everything_saved(
    probing, tmp_path, monkeypatch, capfd, signum, status
):
    whole = training.run({**probing, "output": str(tmp_path / "whole")})
    probing["trainer"]["checkpoint_every_n_steps"] = 100
    # the whole run's curves hold for any rhythm of saves
    batch_start = training.Task.on_train_batch_start

    def asked(self, batch, batch_idx):
        batch_start(self, batch, batch_idx)
        if self.global_step == 6:
            os.kill(os.getpid(), signum)

    monkeypatch.setattr(training.Task, "on_train_batch_start", asked)
    before = signal.getsignal(signum)
    with pytest.raises(stopping.Interrupted) as stopped:
        training.run(probing)
    assert stopped.value.code == status
    assert signal.getsignal(signum) == before
    assert "saving after this step" in capfd.readouterr().err
    last = Path(probing["output"]) / "last.ckpt"
    assert checkpoint.read(last)["global_step"] == 7
    monkeypatch.setattr(training.Task, "on_train_batch_start", batch_start)
    assert ends_as(training.run(probing, resume=last), whole)


def test_outside_of_steps_a_signal_stops_at_once():
    with stopping.StopSignals(), pytest.raises(stopping.Interrupted):
        signal.raise_signal(signal.SIGTERM)


def test_an_echo_of_the_first_signal_is_no_second_one(monkeypatch):
    died = []
    monkeypatch.setattr(stopping.StopSignals, "_die", died.append)
    with stopping.StopSignals() as stop:
        stop.deferred = True
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert (stop.requested, died) == (signal.SIGTERM, [])
        stop.since -= 2 * stopping._ECHO_S
        os.kill(os.getpid(), signal.SIGINT)
    assert died == [signal.SIGINT]


def test_rows_written_ahead_are_not_written_again(tmp_path):
    logger = CurveLogger(tmp_path / "metrics.csv")
    logger.write_ahead({"train/loss": 1.5}, 3)
    logger.log_metrics({"train/loss": 1.5, "lr": 0.1, "epoch": 0}, 3)
    logger.log_metrics({"train/loss": 1.25}, 4)
    assert read_curves(logger.path) == {"train/loss": [(3, 1.5), (4, 1.25)], "lr": [(3, 0.1)]}


def test_validation_follows_only_where_there_is_one():
    trainer = L.Trainer(logger=False, accelerator="cpu", limit_val_batches=0)
    assert not saving.validation_follows(trainer, 0)


def at(*, epoch: int = 0, last: bool = False, **changed):
    """A trainer in the middle of an epoch of eight batches, validated after every other one."""
    settings = {"check_val_every_n_epoch": 1, "val_check_batch": 2} | changed
    return SimpleNamespace(
        enable_validation=True, current_epoch=epoch, is_last_batch=last,
        fit_loop=SimpleNamespace(total_batch_idx=8 * epoch + 3), **settings,
    )  # fmt: skip


def test_validation_follows_only_in_epochs_that_have_one():
    assert saving.validation_follows(at(), 1)
    assert not saving.validation_follows(at(), 2)
    assert saving.validation_follows(at(last=True), 2)
    assert not saving.validation_follows(at(check_val_every_n_epoch=2), 1)
    assert saving.validation_follows(at(check_val_every_n_epoch=2, epoch=1), 1)


def test_validations_by_batches_of_all_epochs_or_by_the_clock():
    over_epochs = at(check_val_every_n_epoch=None, val_check_batch=12, epoch=1)
    assert saving.validation_follows(over_epochs, 3)  # the twelfth batch of all
    assert not saving.validation_follows(at(val_check_batch=None), 1)


@pytest.mark.slow
def test_saves_that_are_due_in_epochs_without_validation_are_made(probing, monkeypatch):
    probing["trainer"] |= {"check_val_every_n_epoch": 2, "val_check_interval": 2}
    saved, save = [], L.Trainer.save_checkpoint

    def recorded(self, *args, **kwargs):
        saved.append(self.global_step)
        save(self, *args, **kwargs)

    monkeypatch.setattr(L.Trainer, "save_checkpoint", recorded)
    training.run(probing)
    assert set(saved) >= {1, 2, 3, 4, 5}


@pytest.mark.parametrize(
    ("seconds", "steps"), [(0.0, 10), (0.01, 10), (0.2, 5), (0.4, 2), (0.9, 1), (60.0, 1)]
)
def test_ranks_agree_about_once_a_second(seconds, steps):
    assert saving.steps_between(seconds) == steps


def test_curves_are_on_the_disk_before_a_checkpoint_counts_them(probing, monkeypatch):
    events: list[str] = []
    sync, save = CurveLogger.sync, L.Trainer.save_checkpoint
    monkeypatch.setattr(CurveLogger, "sync", lambda self: (events.append("sync"), sync(self)))
    monkeypatch.setattr(
        L.Trainer, "save_checkpoint",
        lambda self, *a, **k: (events.append("save"), save(self, *a, **k)),
    )  # fmt: skip
    training.run(probing)
    assert events == ["sync", "save"] * (len(events) // 2)
    assert events


@pytest.mark.parametrize("left", ["", "step,met"])
def test_a_file_of_curves_cut_within_its_header_counts_as_absent(tmp_path, left):
    logger = CurveLogger(tmp_path / "metrics.csv")
    logger.path.write_text(left)
    drop_after(logger.path, 1)
    logger.log_metrics({"train/loss": 0.5}, 1)
    assert read_curves(logger.path) == {"train/loss": [(1, 0.5)]}


def test_rows_of_steps_to_come_and_rows_cut_short_are_dropped(tmp_path):
    logger = CurveLogger(tmp_path / "metrics.csv")
    for step in range(3):
        logger.log_metrics({"train/loss": 0.5}, step)
    with logger.path.open("a") as file:
        file.write("1,train/lo")
    drop_after(logger.path, 2)
    assert read_curves(logger.path) == {"train/loss": [(0, 0.5), (1, 0.5)]}


def test_rows_of_a_validation_behind_the_checkpoint_go(probing, tmp_path):
    whole = training.run(probing)
    before = read_curves(whole / "metrics.csv")
    training.run(probing, resume=whole / "previous.ckpt")  # of before the last validation
    assert read_curves(whole / "metrics.csv") == before
