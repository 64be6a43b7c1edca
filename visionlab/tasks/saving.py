"""Checkpoints of a run: every so many steps, after each epoch, and when a signal asks to stop."""

import logging
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.trainer.states import TrainerFn

from visionlab import checkpoint
from visionlab.tasks.curves import CurveLogger
from visionlab.tasks.stopping import Interrupted, StopSignals

log = logging.getLogger("visionlab")

# ranks ask each other whether to stop about once in so many seconds, and after so many steps at
# most: the answer has to be waited for, and with it all work that is queued on the device
_AGREE_SECONDS, _AGREE_STEPS = 1.0, 10


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoints that are whole or absent, and that load as plain data."""

    def save_checkpoint(
        self, checkpoint_: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Write to a neighbour file, then rename; the replaced one is kept under another name."""
        checkpoint.save(checkpoint_, path, keep=Path(path).with_name(checkpoint.PREVIOUS))

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read with ``weights_only=True``, whatever is asked."""
        return checkpoint.read(path)


class Saving(Checkpoint):
    """Saves where a run can go on exactly: between steps, never within a validation.

    Args:
        path: the checkpoint.
        stop: signals that end the run; ranks agree on the step, about once a second.
        every: steps between saves.
    """

    def __init__(self, path: Path, stop: StopSignals, *, every: int) -> None:
        self.path, self.stop, self.every = path, stop, every
        self.curves = path.with_name("metrics.csv")
        self._step = 0  # the last one seen
        self._asked = (0, 0.0)  # step and time of the last agreement
        self._ask_at = 0  # step of the next one
        self._validating = False

    def on_sanity_check_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Lightning has just put its own handlers in place."""
        self.stop.listen()

    on_predict_start = on_sanity_check_start

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """From here on signals wait for the end of a step."""
        launcher = trainer.strategy.launcher
        self.stop.forward = launcher.kill if launcher is not None else None
        self.stop.listen()
        self.stop.deferred = True
        self._step = self._ask_at = trainer.global_step
        self._asked = self._step, time.monotonic()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Everything is saved."""
        self.stop.deferred = False

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Save if it is time, or if any rank was asked to stop."""
        if trainer.global_step == self._step:  # gradients are being accumulated
            return
        self._step = trainer.global_step
        if validation_follows(trainer, batch_idx):
            return  # Lightning would go on behind the validation
        due = self._step % self.every == 0
        stopping = (due or self._step >= self._ask_at) and self._agreed(trainer)
        if stopping or due:
            write_ahead(trainer)
            self._save(trainer)
        if stopping:
            self._leave(trainer)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save, so that a signal need not wait for the end of a long validation."""
        if trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return
        self._validating = True
        self._save_and_leave_if_asked(trainer)
        self._validating = False
        self.stop.deferred = False

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep the length of the curves; before a validation, count its first batch as begun.

        Lightning then runs the validation from its start; else it would pass over it on resuming.
        """
        if self.curves.is_file():
            checkpoint["curves_bytes"] = self.curves.stat().st_size
        if self._validating:
            progress = checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]
            for counts in (progress["total"], progress["current"]):
                counts["ready"] += 1
                counts["started"] += 1

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Signals wait for the end of a step again."""
        self.stop.deferred = trainer.state.fn == TrainerFn.FITTING

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save the finished epoch."""
        self._save_and_leave_if_asked(trainer)

    def _save(self, trainer: L.Trainer) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, CurveLogger):
                logger.sync()
        trainer.save_checkpoint(self.path)

    def _save_and_leave_if_asked(self, trainer: L.Trainer) -> None:
        self._save(trainer)
        if self._agreed(trainer):
            self._leave(trainer)

    def _agreed(self, trainer: L.Trainer) -> bool:
        """Whether a signal came to any rank; settles when they ask again."""
        if trainer.world_size == 1:
            return self.stop.requested is not None
        (step, then), now = self._asked, time.monotonic()
        seconds = (now - then) / max(trainer.global_step - step, 1)
        found = torch.tensor(
            [self.stop.requested is not None, seconds], device=trainer.strategy.root_device
        )
        asked, slowest = trainer.strategy.reduce(found, reduce_op="max").tolist()
        self._asked = trainer.global_step, now
        self._ask_at = trainer.global_step + steps_between(slowest)
        return bool(asked)

    def _leave(self, trainer: L.Trainer) -> None:
        seconds = time.monotonic() - self.stop.since if self.stop.requested else 0.0
        if trainer.is_global_zero:
            log.info(
                "saved step %d %.2f s after the signal; the same command goes on, or: "
                "python tools/train.py %s", trainer.global_step, seconds, self.path,
            )  # fmt: skip
        raise Interrupted(self.stop.status())


def validation_follows(trainer: L.Trainer, batch_idx: int) -> bool:
    """Whether a validation may come between this batch and the next."""
    epochs = trainer.check_val_every_n_epoch
    if not trainer.enable_validation or (epochs and (trainer.current_epoch + 1) % epochs):
        return False
    # without a number of epochs, Lightning counts the batches of all of them
    seen = batch_idx if epochs else trainer.fit_loop.total_batch_idx
    every = trainer.val_check_batch  # None: Lightning goes by the clock
    return trainer.is_last_batch or (every is not None and (seen + 1) % every == 0)


def steps_between(seconds: float) -> int:
    """Steps of so many seconds after which ranks ask each other again if a signal came."""
    return max(1, min(_AGREE_STEPS, int(_AGREE_SECONDS / max(seconds, 1e-9))))


def write_ahead(trainer: L.Trainer) -> None:
    """Put the rows of this step into the curves before a checkpoint counts it as done.

    Lightning logs a step after its callbacks: a kill in between would lose the rows for good.
    """
    connector = trainer._logger_connector
    if not connector.should_update_logs:
        return
    step = trainer.fit_loop.epoch_loop._batches_that_stepped
    for logger in trainer.loggers:
        if isinstance(logger, CurveLogger):
            logger.write_ahead(connector.metrics["log"], step)
