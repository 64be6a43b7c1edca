"""From a video to files: rows, progress, resuming, outputs that appear complete or not at all."""

import json
import logging
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from visionlab.rotation.journal import Journal, Row
from visionlab.rotation.tracking import RotationTracker
from visionlab.rotation.trajectory import CUT, DUPLICATE, Trajectory
from visionlab.rotation.trajectory_files import WRITERS, atomic, writer
from visionlab.rotation.video import FrameSource, VideoFile

log = logging.getLogger(__name__)

_FIRST = ("frame", "time", "qx", "qy", "qz", "qw")
_FROZEN_FRAMES = 5
_FILES = {"csv": "rotation.csv", "jsonl": "rotation.jsonl", "tum": "trajectory.tum"}


@dataclass(frozen=True)
class RunResult:
    """What a run leaves behind."""

    trajectory: Trajectory
    summary: dict[str, Any]
    files: list[Path] = field(default_factory=list)


class Progress:
    """Frames done, frames a second and the time left, on one line of a terminal.

    Args:
        total: number of frames, if known.
        stream: where to write; without it nothing is.
        resumed: frames that an earlier run has done.
    """

    def __init__(self, total: int | None, stream: TextIO | None, *, resumed: int = 0) -> None:
        self.total = total
        self.stream = stream
        self.done = 0
        self.resumed = resumed
        self._began = time.perf_counter()
        self._cpu_began = time.process_time()
        self._interval = 0.2 if stream is not None and stream.isatty() else 10.0
        self._shown = self._began

    @property
    def rate(self) -> float:
        """Frames a second so far."""
        return self.done / max(time.perf_counter() - self._began, 1e-9)

    @property
    def cpu_seconds(self) -> float:
        """Processor time of this process so far; unlike the rate it hardly feels other programs."""
        return time.process_time() - self._cpu_began

    def step(self) -> None:
        """Count one frame."""
        self.done += 1
        if self.stream is not None and time.perf_counter() - self._shown > self._interval:
            self._shown = time.perf_counter()
            self._write(end="\r" if self.stream.isatty() else "\n")

    def finish(self) -> None:
        """Write the last line."""
        if self.stream is not None:
            self._write(end="\n")

    def _write(self, *, end: str) -> None:
        assert self.stream is not None
        done = self.done + self.resumed
        text = f"{done} frames"
        if self.total:
            left = max(self.total - done, 0) / max(self.rate, 1e-9)
            text = (
                f"{done}/{self.total} frames, {100 * done / self.total:3.0f} %, {left:5.0f} s left"
            )
        self.stream.write(f"{text}, {self.rate:7.1f} frames/s{end}")
        self.stream.flush()


def run(
    source: FrameSource,
    tracker: RotationTracker,
    output: str | Path,
    *,
    start: int = 0,
    formats: Sequence[str] = ("csv",),
    settings: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    progress: TextIO | None = None,
) -> RunResult:
    """Estimate the rotation of every frame of a source and write the results into a folder.

    A run that is killed goes on where it stopped when it is called again with the same settings.

    Args:
        output: folder; it gets ``rotation.csv``, ``summary.json`` and the further formats.
        start: first frame.
        formats: of ``csv``, ``jsonl``, ``tum``, ``gcsv``.
        settings: what the result depends on besides the source; kept in the summary.
        overwrite: replace results, and discard a run that was not finished.
        progress: where to show progress, e.g. ``sys.stderr``.

    Raises:
        FileExistsError: the folder has results already, and ``overwrite`` is not set.
        ValueError: fewer than two frames, or an unfinished run with other settings.
    """
    folder = Path(output)
    targets = {name: folder / file_name(name, source.name) for name in formats}
    for name in targets:
        writer(name)
    _refuse_existing([*targets.values(), folder / "summary.json"], overwrite=overwrite)
    everything = {"source": _source_identity(source), "start": start, **dict(settings or {})}
    unfinished = folder / "unfinished.jsonl"
    if overwrite or source.live:
        unfinished.unlink(missing_ok=True)
    with Journal(unfinished, everything) as journal:
        resumed = len(journal.rows)
        meter = Progress(_expected(source, start), progress, resumed=resumed)
        try:
            for row in _new_rows(source, tracker, start, journal.rows):
                journal.append(row)
                meter.step()
        except KeyboardInterrupt:
            # a stream has no end of its own: what arrived is the result
            if not source.live:
                raise
        meter.finish()
    if len(journal.rows) < 2:
        journal.delete()
        raise ValueError(_too_few(len(journal.rows), source, start))
    trajectory = to_trajectory(journal.rows)
    summary = {
        **summarise(trajectory),
        "frames_per_second": round(meter.rate, 2) if meter.done else None,
        "cpu_seconds": round(meter.cpu_seconds, 3),
        "resumed_after": resumed,
        "truncated": isinstance(source, VideoFile) and source.truncated,
        "settings": everything,
    }
    _write(trajectory, targets, source.name)
    for stale in {folder / file_name(name, source.name) for name in WRITERS} - {*targets.values()}:
        stale.unlink(missing_ok=True)  # of the run that is overwritten
    with atomic(folder / "summary.json") as file:
        json.dump(summary, file, indent=2)
        file.write("\n")
    journal.delete()
    return RunResult(trajectory, summary, [*targets.values(), folder / "summary.json"])


def to_trajectory(rows: Sequence[Row]) -> Trajectory:
    """Rows of `tracking` as one trajectory."""
    names = [name for name in rows[0] if name not in _FIRST]
    return Trajectory(
        np.array([row["frame"] for row in rows]),
        np.array([row["time"] for row in rows]),
        np.array([[row[f"q{a}"] for a in "xyzw"] for row in rows]),
        {name: [row[name] for row in rows] for name in names},
    )


def summarise(trajectory: Trajectory) -> dict[str, Any]:
    """Counts, total rotation and events (cuts, frozen pictures) in plain values."""
    status = list(trajectory.columns["status"])
    steps = np.degrees(np.linalg.norm(np.nan_to_num(trajectory.steps), axis=1))
    return {
        "frames": len(trajectory),
        "seconds": round(float(trajectory.times[-1] - trajectory.times[0]), 6),
        "status": dict(Counter(status[1:])),
        "mean_step_deg": float(steps.mean()),
        "max_step_deg": float(steps.max()),
        "events": events(trajectory),
    }


def events(trajectory: Trajectory) -> list[dict[str, Any]]:
    """Cuts, single duplicates, and frozen pictures (five duplicates or more in a row)."""
    found = []
    status = list(trajectory.columns["status"])
    index = 1
    while index < len(status):
        end = index + 1
        if status[index] == DUPLICATE:
            while end < len(status) and status[end] == DUPLICATE:
                end += 1
            kind = "frozen" if end - index >= _FROZEN_FRAMES else "duplicate"
            found.append(_event(kind, trajectory, index, end - 1))
        elif status[index] == CUT:
            found.append(_event("cut", trajectory, index, index))
        index = end
    return found


def file_name(format: str, source: str) -> str:
    """Name of an output; a gyro log bears the video's name, by which Gyroflow finds it."""
    stem = Path(source).stem or "stream"
    return f"{stem}.gcsv" if format == "gcsv" else _FILES.get(format, f"rotation.{format}")


def _source_identity(source: FrameSource) -> dict[str, Any]:
    """What tells this source from another: name, size of the picture, size and date of the file."""
    identity: dict[str, Any] = {"name": source.name, "size": list(source.size)}
    path = Path(source.name)
    if path.exists():
        stat = path.stat()
        identity |= {"name": path.resolve().name, "bytes": stat.st_size, "date": int(stat.st_mtime)}
    return identity


def _new_rows(
    source: FrameSource, tracker: RotationTracker, start: int, rows: Sequence[Row]
) -> Iterator[Row]:
    colour = tracker.flow.colour
    if rows:
        last = rows[-1]
        log.info("going on after frame %d", last["frame"])
        return tracker.rows(source.frames(start=last["frame"], colour=colour), before=last)
    return tracker.rows(source.frames(start=start, colour=colour))


def _write(trajectory: Trajectory, targets: Mapping[str, Path], video: str) -> None:
    for name, path in targets.items():
        options = {"video": video} if name == "gcsv" else {}
        writer(name)(trajectory, path, **options)


def _refuse_existing(paths: Sequence[Path], *, overwrite: bool) -> None:
    existing = [str(path) for path in paths if path.exists()]
    if existing and not overwrite:
        raise FileExistsError(
            f"{existing[0]} exists already; name another output folder, or give --overwrite"
        )


def _expected(source: FrameSource, start: int) -> int | None:
    return None if source.count is None else max(source.count - start, 0)


def _too_few(count: int, source: FrameSource, start: int) -> str:
    where = f" from frame {start} on" if start else ""
    what = "no frame" if count == 0 else "only one frame"
    return f"{what} could be read from {source.name}{where}; a rotation needs two"


def _event(kind: str, trajectory: Trajectory, first: int, last: int) -> dict[str, Any]:
    return {
        "kind": kind,
        "first_frame": int(trajectory.frames[first]),
        "last_frame": int(trajectory.frames[last]),
        "time": float(trajectory.times[first]),
    }
