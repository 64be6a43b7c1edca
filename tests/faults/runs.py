"""A run in a process of its own: started, watched, hit, started again, and compared."""

import os
import signal
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import yaml

from tests.faults import child
from visionlab import checkpoint
from visionlab.tasks.curves import read_curves

_LIMIT_S = 300.0  # patient: machines are busy


class Run:
    """One run folder and the process that works in it.

    Args:
        context: of `forks.nursery`.
        folder: for config and log; the run folder lies below it.
        config: resolved.
    """

    def __init__(self, context: Any, folder: Path, config: dict[str, Any]) -> None:
        self.context, self.folder, self.config = context, folder, config
        self.output = Path(config["output"])
        self.seconds: float | None = None  # from a signal to the end
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        self.process: Any = None

    @property
    def task(self) -> str:
        """Name of the task."""
        return self.config["task"]["name"]

    @property
    def last(self) -> Path:
        """Where the checkpoint lies."""
        return self.output / "last.ckpt"

    @property
    def said(self) -> str:
        """Everything that the process printed."""
        path = self.folder / "log.txt"
        return path.read_text(errors="replace") if path.is_file() else ""

    def start(self, *arguments: str, arms: Sequence[child.Arm] = ()) -> None:
        """Start the tool; on its config, if no arguments are given."""
        given = arguments or (str(self.folder / "config.yaml"),)
        target = (str(self.folder / "log.txt"), given, tuple(arms))
        self.process = self.context.Process(target=child.main, args=target)
        self.process.start()

    def progress(self) -> int:
        """Rows of curves, or frames, that are done."""
        if self.task != "rotation":
            return len(losses(self.output))
        rows = sum(f.read_bytes().count(b"\n") for f in self.output.glob("*/unfinished.jsonl"))
        return rows + 7 * len(list(self.output.glob("*/errors.json")))

    def until(self, progress: int) -> None:
        """Wait for so much progress, or for the end."""
        self._wait_for(lambda: self.progress() >= progress)

    def until_said(self, text: str) -> None:
        """Wait for a text, or for the end."""
        self._wait_for(lambda: text in self.said)

    def _wait_for(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + _LIMIT_S
        while self.process.is_alive() and not condition():
            assert time.monotonic() < end, f"nothing happens: {self.said}"
            time.sleep(0.004)

    def signal(self, signum: signal.Signals) -> None:
        """Send a signal, if the process is still there."""
        if self.process.is_alive():
            os.kill(self.process.pid, signum)

    def wait(self) -> int:
        """Exit status; negative for a signal."""
        start = time.monotonic()
        self.process.join(_LIMIT_S)
        assert self.process.exitcode is not None, f"it does not end: {self.said}"
        self.seconds = time.monotonic() - start
        return self.process.exitcode

    def finish(self, *arguments: str, arms: Sequence[child.Arm] = ()) -> int:
        """Start and wait."""
        self.start(*arguments, arms=arms)
        return self.wait()

    def fails_clearly(self, *words: str) -> None:
        """The process ended with one line that says what is wrong."""
        assert self.process.exitcode == 1, (self.process.exitcode, self.said)
        errors = [line for line in self.said.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1, self.said
        assert "Traceback" not in self.said, self.said
        for word in words:
            assert word in self.said, (word, self.said)

    def is_intact(self) -> None:
        """What was saved can be read, and is finite."""
        for path in self.output.glob("*.ckpt"):
            for value in checkpoint.read(path)["state_dict"].values():
                assert torch.isfinite(value).all(), path

    def ends_as(self, whole: "Outcome", *arguments: str, arms: Sequence[child.Arm] = ()) -> None:
        """Started again, it comes to its end, and everything is bit-equal to the whole run."""
        assert self.finish(*arguments, arms=arms) == 0, self.said
        difference = whole.difference(Outcome(self.output))
        assert not difference, difference
        assert not list(self.output.glob(".*.part")), "leftovers"


def losses(output: Path) -> list[int]:
    """Steps whose loss is in the curves."""
    path = output / "metrics.csv"
    if not path.is_file():
        return []
    rows = path.read_text().splitlines()
    return [int(r.split(",")[0]) for r in rows if ",train/loss," in r]


class Outcome:
    """All that a finished run leaves behind and that must not depend on what happened to it."""

    def __init__(self, output: Path) -> None:
        self.output = output

    @cached_property
    def parts(self) -> dict[str, Any]:
        """Weights, optimiser, curves and results."""
        found: dict[str, Any] = {}
        if (self.output / "last.ckpt").is_file():
            content = checkpoint.read(self.output / "last.ckpt")
            found |= {k: content[k] for k in ("state_dict", "optimizer_states", "global_step")}
        if (self.output / "metrics.csv").is_file():
            curves = read_curves(self.output / "metrics.csv")
            found["curves"] = {k: repr(v) for k, v in curves.items() if k != "val/cpu_minutes"}
        names = ["results.json", "*/rotation.csv", "*/errors.json"]
        for path in sorted(p for n in names for p in self.output.glob(n)):
            found[str(path.relative_to(self.output))] = path.read_bytes()
        return found

    def difference(self, other: "Outcome") -> str:
        """Where two outcomes differ; empty if they are bit-equal."""
        return _difference(self.parts, other.parts, "")


def _difference(first: Any, second: Any, path: str) -> str:
    if isinstance(first, dict) and isinstance(second, dict):
        if first.keys() != second.keys():
            return f"{path}: {sorted(map(str, first.keys() ^ second.keys()))}"
        found = (_difference(first[k], second[k], f"{path}.{k}") for k in first)
        return next((f for f in found if f), "")
    if isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        pairs = enumerate(zip(first, second))
        return next((f for i, (a, b) in pairs if (f := _difference(a, b, f"{path}.{i}"))), "")
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        same = first.shape == second.shape and torch.equal(first, second)
    else:
        same = first == second
    return "" if same else f"{path}: {first!r} against {second!r}"
