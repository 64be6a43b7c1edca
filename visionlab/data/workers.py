"""Loader processes: deaf to signals that are meant for the run, and named when they die."""

import multiprocessing
import os
import signal
import threading


def shield(worker: int) -> None:
    """Let a loader process ignore signals that are meant for the run; a ``worker_init_fn``.

    A scheduler or a terminal signals every process of a job. A worker that died of it would take
    the run down before its step is saved. SIGTERM from the parent still ends the worker: so torch
    stops one that hangs.
    """
    for name in ("SIGINT", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # not on macOS and Windows
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_when_the_parent_asks, daemon=True).start()


def _end_when_the_parent_asks() -> None:
    parent = multiprocessing.parent_process()  # getppid() is a fork server, where there is one
    while True:
        asked = signal.sigwaitinfo({signal.SIGTERM}).si_pid
        if parent is None or asked == parent.pid:
            os._exit(0)


def explain_death(error: BaseException) -> RuntimeError | None:
    """What to do, if ``error`` tells of the death of a loader process; else None.

    Torch raises it out of a signal handler, wherever the run is at that moment.
    """
    first = str(error).partition("\n")[0].strip()
    # a batch of a dead worker is fetched through a socket that nobody serves any more
    lost = isinstance(error, ConnectionError | EOFError)
    if not lost and not first.startswith("DataLoader worker"):
        return None
    return RuntimeError(
        f"a loader process died ({first}), often for lack of memory. The same command goes on "
        "from the last save; fewer data.num_workers need less memory"
    )
