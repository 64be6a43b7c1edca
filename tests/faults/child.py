"""What a forked process does: the tool's own door, its output in a file, faults armed inside.

The fork server has imported everything, so that a run starts in milliseconds.
"""

import multiprocessing
import os
import resource
import signal
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

Arm = tuple[str, int]  # what happens, and when


def main(log: str, arguments: Sequence[str], arms: Sequence[Arm]) -> None:
    """Run tools/train.py in this process and end it with the tool's status."""
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    import torch
    import train  # of tools/, see tests/everything.py

    torch.set_num_threads(1)  # threads that wait for each other are slow on a busy machine

    warnings.simplefilter("ignore")
    multiprocessing.set_start_method("fork", force=True)  # of loader processes, as outside of here
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for name, when in arms:
        ARMS[name](when)
    sys.argv = ["train.py", *arguments]
    sys.exit(train.main(arguments))


def _at_step(when: int, act: Callable[[Any], None]) -> None:
    """Call ``act(task)`` at the start of step ``when``, and of all that follow."""
    from visionlab.tasks.base import Task

    start = Task.on_train_batch_start

    def changed(self: Task, batch: Any, batch_idx: int) -> None:
        start(self, batch, batch_idx)
        if self.global_step >= when:
            act(self)

    Task.on_train_batch_start = changed  # type: ignore[method-assign]


def die_at_fsync(when: int) -> None:
    """SIGKILL at the ``when``-th time that bytes or a rename are forced to the disk."""
    calls, real = iter(range(1, when)), os.fsync

    def fsync(handle: int) -> None:
        if next(calls, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        real(handle)

    os.fsync = fsync


def die_half_written(when: int) -> None:
    """SIGKILL in the middle of writing the ``when``-th checkpoint."""
    import torch

    saves, real = iter(range(1, when)), torch.save

    def save(content: Any, file: Any) -> None:
        if next(saves, None) is None:
            file.write(b"PK\x03\x04 and then nothing")
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        real(content, file)

    torch.save = save


def hang(when: int) -> None:
    """A step that does not end."""

    def sleep(task: Any) -> None:
        print("hanging", flush=True)
        time.sleep(600)

    _at_step(when, sleep)


def small_files(when: int) -> None:
    """No file may grow beyond 2 kB from step ``when`` on (a full disk, for those not root)."""
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    _at_step(when, lambda task: resource.setrlimit(resource.RLIMIT_FSIZE, (2048, hard)))


def not_finite(when: int, last: int = 10**9) -> None:
    """The loss is NaN from step ``when`` on."""
    from visionlab.tasks.base import Task

    backward = Task.backward

    def changed(self: Task, loss: Any, *args: Any, **kwargs: Any) -> None:
        bad = when <= self.global_step <= last
        backward(self, loss * float("nan") if bad else loss, *args, **kwargs)

    Task.backward = changed  # type: ignore[method-assign]


def one_not_finite(when: int) -> None:
    """The loss is NaN in step ``when`` alone."""
    not_finite(when, when)


ARMS: dict[str, Callable[[int], None]] = {
    f.__name__: f
    for f in (die_at_fsync, die_half_written, hang, small_files, not_finite, one_not_finite)
}
