"""What can happen to a run, and what must come of it.

Each function does one thing to a run that is about to start, at a place that ``rng`` draws, and
checks that the run then ends as the undisturbed ``whole`` one did, or stops with one clear error
and goes on once the cause is gone. It returns what came of it, for the table.
"""

import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

from tests.faults.runs import Outcome, Run, losses
from tests.faults.scenarios import TASKS
from visionlab import checkpoint
from visionlab.tasks.stopping import TRY_AGAIN

EXACT, TOLD = "exact resume", "clear error, then exact"
FIT = TASKS[:5]
READING = ("pretraining", "probing", "finetuning", "multitask")
LENGTH = dict.fromkeys(TASKS, 10) | {"multitask": 9, "rotation": 18, "shards": 10}
Kind = Callable[[Run, Outcome, Random], str]
KINDS: dict[str, tuple[Kind, tuple[str, ...]]] = {}
stop_seconds: list[float] = []


def kind(name: str, tasks: tuple[str, ...] = TASKS) -> Callable[[Kind], Kind]:
    """Name a kind of fault and the tasks that it can happen to."""

    def register(function: Kind) -> Kind:
        KINDS[name] = (function, tasks)
        return function

    return register


def somewhere(run: Run, rng: Random, first: int = 1) -> int:
    """A place within the run."""
    name = run.folder.name.split("-")[0]
    return rng.randrange(first, LENGTH[name] - 1)


def reach(run: Run, rng: Random, first: int = 1) -> None:
    """Start the run and wait until it is somewhere in its steps."""
    run.start()
    run.until(somewhere(run, rng, first))
    time.sleep(rng.random() * 0.03)


def killed_at(run: Run, rng: Random, first: int = 1) -> None:
    """Start the run and kill it somewhere."""
    reach(run, rng, first)
    run.signal(signal.SIGKILL)
    run.wait()


@kind("SIGKILL")
def killed(run: Run, whole: Outcome, rng: Random) -> str:
    killed_at(run, rng)
    if rng.random() < 0.5:  # and once more
        killed_at(run, rng)
    run.ends_as(whole)
    return EXACT


@kind("SIGKILL while saving", FIT)
def killed_while_saving(run: Run, whole: Outcome, rng: Random) -> str:
    half = rng.random() < 0.4
    arm = (
        ("die_half_written", rng.randrange(1, 7))
        if half
        else ("die_at_fsync", rng.randrange(1, 14))
    )
    assert run.finish(arms=[arm]) == -signal.SIGKILL, run.said
    run.is_intact()
    run.ends_as(whole)
    return EXACT


def stopped(run: Run, whole: Outcome, rng: Random, signum: signal.Signals, status: int) -> str:
    """A signal that asks to stop: what was done is saved, and the status says so."""
    reach(run, rng)
    run.signal(signum)
    found = run.wait()
    if found == status:
        stop_seconds.append(run.seconds or 0.0)
        if run.last.is_file():
            done = losses(run.output)[-1] + 1
            assert checkpoint.read(run.last)["global_step"] == done
    else:
        assert found == 0, (found, run.said)  # it was already at its end
    run.ends_as(whole)
    return EXACT


@kind("SIGTERM")
def terminated(run: Run, whole: Outcome, rng: Random) -> str:
    return stopped(run, whole, rng, signal.SIGTERM, TRY_AGAIN)


@kind("SIGINT")
def interrupted(run: Run, whole: Outcome, rng: Random) -> str:
    return stopped(run, whole, rng, signal.SIGINT, 130)


@kind("SIGTERM, soon SIGKILL")
def preempted(run: Run, whole: Outcome, rng: Random) -> str:
    """The grace of the scheduler ends before everything is saved."""
    reach(run, rng)
    run.signal(signal.SIGTERM)
    time.sleep(rng.random() * 0.1)
    run.signal(signal.SIGKILL)
    run.wait()
    run.ends_as(whole)
    return EXACT


@kind("second signal", FIT)
def hanging(run: Run, whole: Outcome, rng: Random) -> str:
    """A step that does not end: the first signal waits for it, a second one does not."""
    step = somewhere(run, rng)
    run.start(arms=[("hang", step)])
    run.until_said("hanging")
    run.signal(signal.SIGTERM)
    run.until_said("saving after this step")
    time.sleep(1.1)
    assert run.process.is_alive()
    run.signal(rng.choice([signal.SIGTERM, signal.SIGINT]))
    assert run.wait() < 0, run.said
    run.ends_as(whole)
    return EXACT


@kind("disk full")
def disk_full(run: Run, whole: Outcome, rng: Random) -> str:
    """No space while saving: a real small disk if this process may mount one, else small files."""
    disk = run.output.parent
    disk.mkdir(exist_ok=True)
    mounted = mount(disk)
    try:
        if mounted:
            reach(run, rng)
            ballast = fill(disk, leave=rng.randrange(0, 3000))
        else:
            run.start(arms=[("small_files", somewhere(run, rng))])
        status = run.wait()
        run.is_intact()
        if status:
            run.fails_clearly("Free some space", str(run.output))
        if mounted:
            ballast.unlink()
        run.ends_as(whole)
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(disk)], check=True)
    return TOLD if status else EXACT


def mount(folder: Path) -> bool:
    """Put a small disk of its own on ``folder``, if this process may."""
    command = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def fill(disk: Path, leave: int) -> Path:
    """Fill the disk but for some bytes."""
    path = disk / "ballast"
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            file.truncate(max(file.tell() - leave, 0))
    return path


def damaged(run: Run, whole: Outcome, rng: Random, damage: Callable[[bytes], bytes]) -> str:
    """A checkpoint that is not what was written: it is said, and the one before it goes on."""
    killed_at(run, rng, first=6)
    before = checkpoint.read(run.last)
    run.last.write_bytes(damage(run.last.read_bytes()))
    status = run.finish()
    if status == 0:  # the flip hit padding: nothing of what is read has changed
        assert not whole.difference(Outcome(run.output))
        return EXACT
    run.fails_clearly("last.ckpt", "previous.ckpt")
    earlier = run.last.with_name(checkpoint.PREVIOUS)
    assert checkpoint.read(earlier)["global_step"] <= before["global_step"]
    run.ends_as(whole, str(earlier))
    return TOLD


@kind("truncated checkpoint", FIT)
def truncated(run: Run, whole: Outcome, rng: Random) -> str:
    return damaged(run, whole, rng, lambda data: data[: rng.randrange(len(data))])


@kind("bit flip in checkpoint", FIT)
def flipped(run: Run, whole: Outcome, rng: Random) -> str:
    return damaged(run, whole, rng, lambda data: flip(data, rng))


def flip(data: bytes, rng: Random) -> bytes:
    """One bit turned."""
    changed = bytearray(data)
    changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


@kind("data file removed", (*READING, "rotation"))
def removed(run: Run, whole: Outcome, rng: Random) -> str:
    """A file goes while the run works, or between two starts; then it comes back."""
    name = run.folder.name.split("-")[0]
    data = run.folder / "data"
    shutil.copytree(run.folder.parent / "data", data)
    files = {
        "pretraining": sorted(data.glob("images/*/*.png")),
        "multitask": sorted(data.glob("?.npz")),
        "rotation": sorted(data.glob("sequences/c/frames/*.png"))[2:],
    }.get(name, [data / "images.npz"])
    lost = rng.choice(files)
    aside = run.folder / "aside"
    if name in ("pretraining", "rotation"):
        run.start()
        run.until(rng.randrange(1, 6))
        shutil.move(lost, aside)
        status = run.wait()
        if status == 0:  # it had been read for the last time
            assert not whole.difference(Outcome(run.output))
            return EXACT
    else:
        killed_at(run, rng)
        shutil.move(lost, aside)
        run.finish()
    run.fails_clearly("sequences/c" if name == "rotation" else lost.name)
    shutil.move(aside, lost)
    run.ends_as(whole)
    return TOLD


@kind("loader process dies", READING)
def worker_dies(run: Run, whole: Outcome, rng: Random) -> str:
    run.start()
    run.until(somewhere(run, rng))
    found = Path(f"/proc/{run.process.pid}/task/{run.process.pid}/children")
    children = found.read_text().split() if found.is_file() else []
    if children:
        subprocess.run(["kill", "-KILL", rng.choice(children)], check=False)
    status = run.wait()
    if status:
        run.fails_clearly("a loader process died", "data.num_workers")
    run.ends_as(whole)
    return TOLD if status else EXACT


@kind("SIGTERM to the whole job", READING)
def signal_to_all(run: Run, whole: Outcome, rng: Random) -> str:
    """A scheduler signals every process of the job, loader processes too."""
    reach(run, rng)
    signum = rng.choice([signal.SIGTERM, signal.SIGUSR1])
    found = Path(f"/proc/{run.process.pid}/task/{run.process.pid}/children")
    for child in found.read_text().split() if found.is_file() else []:
        subprocess.run(["kill", f"-{signum.value}", child], check=False)
    run.signal(signum)
    status = run.wait()
    assert status in (TRY_AGAIN, 0), run.said
    run.ends_as(whole)
    return EXACT


@kind("loss not finite", FIT)
def not_finite(run: Run, whole: Outcome, rng: Random) -> str:
    """From some step on, until the limit: what is saved is finite, and it is said what to do."""
    assert run.finish(arms=[("not_finite", rng.randrange(6))]) == 1, run.said
    run.fails_clearly("not finite", "learning rate")
    run.is_intact()
    # the run may go on from there; it is another one now: these steps had no effect
    assert run.finish() == 0, run.said
    run.is_intact()
    return "clear error, files finite"


@kind("one bad step, SIGKILL", FIT)
def one_bad_step(run: Run, whole: Outcome, rng: Random) -> str:
    """A single step that is not finite is left out, whatever happens before and after it."""
    arms = [("one_not_finite", somewhere(run, rng))]
    other = Run(run.context, run.folder / "whole", {**run.config, "output": str(run.folder / "w")})
    assert other.finish(arms=arms) == 0, other.said
    run.start(arms=arms)
    run.until(somewhere(run, rng))
    run.signal(signal.SIGKILL)
    run.wait()
    run.ends_as(Outcome(other.output), arms=arms)
    return EXACT


@kind("shard damaged", ("shards",))
def shard_damaged(run: Run, whole: Outcome, rng: Random) -> str:
    """A packed set with a bit flipped, cut short, or a shard missing; then it is mended."""
    data = run.folder / "data"
    shutil.copytree(run.folder.parent / "data", data)
    killed_at(run, rng)
    path = rng.choice(sorted(p for p in (data / "packed").iterdir() if p.suffix != ".txt"))
    good = path.read_bytes()
    way = rng.choice(["flip", "cut", "gone"])
    if way == "gone":
        path.unlink()
    else:
        path.write_bytes(flip(good, rng) if way == "flip" else good[: rng.randrange(len(good))])
    status = run.finish()
    if status == 0:  # the flip hit padding, or a sample of steps that were done
        assert way == "flip"
        assert not whole.difference(Outcome(run.output))
        return EXACT
    run.fails_clearly(path.name)
    path.write_bytes(good)
    run.ends_as(whole)
    return TOLD


@kind("journal damaged", ("rotation",))
def journal_damaged(run: Run, whole: Outcome, rng: Random) -> str:
    """The file of unfinished rows cut short, or with a bit flipped."""
    killed_at(run, rng)
    found = list(run.output.glob("*/unfinished.jsonl"))
    if not found:
        run.ends_as(whole)
        return EXACT
    data = found[0].read_bytes()
    cut = rng.random() < 0.5 or not data
    found[0].write_bytes(data[: rng.randrange(len(data) + 1)] if cut else flip(data, rng))
    run.ends_as(whole)
    return EXACT
