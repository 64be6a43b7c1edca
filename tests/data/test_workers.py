"""Loader processes live through the signals of a run, end with it, and their death is told."""

import multiprocessing
import os
import signal
import subprocess
import time

import pytest

from visionlab.data.workers import explain_death, shield


def _shielded(ready):
    shield(0)
    ready.set()
    time.sleep(60)


@pytest.fixture
def worker():
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    process = context.Process(target=_shielded, args=(ready,))
    process.start()
    assert ready.wait(30)
    yield process
    process.kill()
    process.join()


@pytest.mark.skipif(not hasattr(signal, "sigwaitinfo"), reason="macOS and Windows have no senders")
def test_signals_for_the_run_pass_by_and_the_parent_is_heard(worker):
    for name in (signal.SIGINT, signal.SIGUSR1):
        os.kill(worker.pid, name)
    subprocess.run(["kill", "-TERM", str(worker.pid)], check=True)  # not by the parent itself
    worker.join(0.3)
    assert worker.is_alive()
    os.kill(worker.pid, signal.SIGTERM)
    worker.join(30)
    assert worker.exitcode == 0


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.\nmore"),
        RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly"),
        ConnectionResetError("by peer"),
        EOFError("no more bytes"),
    ],
)
def test_a_dead_worker_is_told_in_one_line(error):
    told = str(explain_death(error))
    assert told.startswith(f"a loader process died ({str(error).partition(chr(10))[0]})")
    assert "\n" not in told


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), ValueError("no"), OSError("x")])
def test_other_errors_are_nobodys_death(error):
    assert explain_death(error) is None
