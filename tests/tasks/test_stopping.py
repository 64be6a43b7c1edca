"""The first signal stops at a whole step, the second at once; others' handlers come back."""

import multiprocessing
import os
import signal
import threading

import pytest

from visionlab.tasks import stopping
from visionlab.tasks.stopping import Interrupted, StopSignals


def send(signum):
    os.kill(os.getpid(), signum)


@pytest.mark.parametrize(
    ("signum", "status"), [(signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGINT, 130)]
)
def test_the_first_signal_is_waited_for_where_a_step_runs(signum, status, capfd):
    before = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)}
    with StopSignals() as stop:
        stop.deferred = True
        assert stop.status() == 75
        send(signum)
        send(signum)  # an echo: a terminal and a launcher may both pass it on
        assert stop.requested == signum
        assert stop.status() == status
    assert {s: signal.getsignal(s) for s in before} == before
    assert capfd.readouterr().err.count("saving after this step") == 1


def test_outside_a_step_it_ends_the_script():
    with StopSignals(), pytest.raises(Interrupted) as ended:
        send(signal.SIGTERM)
    assert ended.value.code == 75


def test_it_is_passed_on_except_what_a_terminal_sends_to_all():
    for signum, passed in ((signal.SIGTERM, [signal.SIGTERM]), (signal.SIGINT, [])):
        told = []
        with StopSignals() as stop:
            stop.deferred, stop.forward = True, told.append
            send(signum)
        assert told == passed


def test_signals_are_taken_back_from_whoever_took_them():
    with StopSignals() as stop:
        stop.deferred = True
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as Lightning does
        stop.listen()
        send(signal.SIGTERM)
        assert stop.requested == signal.SIGTERM


def test_other_threads_listen_to_nothing():
    before, entered = signal.getsignal(signal.SIGTERM), []

    def enter():
        with StopSignals() as stop:
            stop.listen()
            entered.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert entered == [before]


def _twice(late):
    if late:
        stopping._ECHO_S = 0.0
    with StopSignals() as stop:
        stop.deferred = True
        send(signal.SIGTERM)
        send(signal.SIGTERM)
    os._exit(7)


@pytest.mark.parametrize(("late", "status"), [(False, 7), (True, -signal.SIGTERM)])
def test_a_second_signal_ends_the_process_unless_it_is_an_echo(late, status):
    process = multiprocessing.get_context("fork").Process(target=_twice, args=(late,))
    process.start()
    process.join(30)
    assert process.exitcode == status


def test_a_forked_process_is_not_meant():
    with StopSignals() as stop:
        stop.deferred = True
        context = multiprocessing.get_context("fork")
        process = context.Process(target=_send_and_tell, args=(stop,))
        process.start()
        process.join(30)
        assert process.exitcode == 0
        assert stop.requested is None


def _send_and_tell(stop):
    send(signal.SIGTERM)
    os._exit(0 if stop.requested is None else 1)
