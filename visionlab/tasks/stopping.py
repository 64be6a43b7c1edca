"""Signals end a run at the next whole step, with everything saved.

A scheduler that takes a machine back sends SIGTERM (or SIGUSR1, where it is told to), a user sends
SIGINT by Ctrl-C. The first one lets the step at hand finish; the run is saved and the process
ends with status 75, "try again later" (EX_TEMPFAIL of sysexits.h), or 130 after SIGINT: the same
command goes on. A second one ends the process at once; what was saved before is whole.
"""

import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, Self

TRY_AGAIN = 75
_STATUS = {signal.SIGTERM: TRY_AGAIN, signal.SIGUSR1: TRY_AGAIN, signal.SIGINT: 130}
_ECHO_S = 1.0  # one request may arrive twice, from the terminal and from a launcher


class Interrupted(SystemExit):
    """The run stopped because a signal asked for it; ends a script with the right status."""


class StopSignals:
    """Listens for signals while it is entered; from the main thread, else it does nothing.

    Example:
        >>> with StopSignals() as stop:
        ...     stop.requested is None
        True
    """

    def __init__(self) -> None:
        self.requested: signal.Signals | None = None
        self.since = 0.0  # monotonic seconds of the first signal
        self.deferred = False  # whether a whole step is being waited for
        self.forward: Callable[[signal.Signals], Any] | None = None  # to processes that we started
        self._before: dict[signal.Signals, Any] = {}
        self._process = os.getpid()

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {s: signal.getsignal(s) for s in _STATUS}
            self.listen()
        return self

    def __exit__(self, *exception: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
        self._before = {}

    def listen(self) -> None:
        """Take the signals back from whoever else has asked for them since (Lightning does)."""
        for signum in self._before:
            signal.signal(signum, self._receive)

    def status(self) -> int:
        """Exit status of the process."""
        return TRY_AGAIN if self.requested is None else _STATUS[self.requested]

    def _receive(self, number: int, frame: FrameType | None) -> None:
        signum = signal.Signals(number)
        if os.getpid() != self._process:  # a process forked from this one: not what was meant
            return
        if self.requested is not None:
            if time.monotonic() - self.since >= _ECHO_S:
                self._die(signum)
            return
        self.requested, self.since = signum, time.monotonic()
        if self.forward is not None and signum != signal.SIGINT:  # a terminal reaches all itself
            self.forward(signum)
        if not self.deferred:
            _say(f"{signum.name}: stopping; the same command goes on from the last save")
            raise Interrupted(self.status())
        _say(f"{signum.name}: saving after this step; a second one stops at once")

    @staticmethod
    def _die(signum: signal.Signals) -> None:
        _say(f"{signum.name} again: stopping at once; the last save is whole")
        signal.signal(signum, signal.SIG_DFL)
        os.kill(os.getpid(), signum)


def _say(text: str) -> None:
    """Unbuffered: a signal may come in the middle of a print."""
    os.write(2, f"\n{text}\n".encode())
