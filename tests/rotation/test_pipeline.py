import io
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from visionlab.rotation.estimator import RotationEstimator
from visionlab.rotation.evaluation import step_errors
from visionlab.rotation.flow import LucasKanade
from visionlab.rotation.pipeline import Progress, run
from visionlab.rotation.sequences import read_sequence
from visionlab.rotation.tracking import RotationTracker
from visionlab.rotation.trajectory_files import read_trajectory
from visionlab.rotation.video import open_source


@pytest.fixture
def recording(clip):
    return read_sequence(clip)


def tracker(camera) -> RotationTracker:
    return RotationTracker(camera, LucasKanade(), RotationEstimator(camera, grid_step=8))


def test_every_output_tells_the_same_rotation(recording, tmp_path) -> None:
    formats = ("csv", "jsonl", "tum", "gcsv")
    result = run(recording.source, tracker(recording.camera), tmp_path / "out", formats=formats)
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert names == ["frames.gcsv", "rotation.csv", "rotation.jsonl", "summary.json",
                     "trajectory.tum"]  # fmt: skip
    for name in ("rotation.csv", "rotation.jsonl", "trajectory.tum"):
        steps = read_trajectory(tmp_path / "out" / name).steps
        assert steps == pytest.approx(result.trajectory.steps, abs=1e-9)
    assert step_errors(result.trajectory.steps, recording.truth.steps).max() < 0.05
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["frames"] == 12
    assert summary["status"] == {"ok": 11}
    assert not summary["truncated"]


class Stops:
    """A source whose reader is interrupted."""

    def __init__(self, source, after: int, error: type[BaseException], *, live: bool = False):
        self.source, self.after, self.error, self.live = source, after, error, live
        self.name, self.size, self.fps = source.name, source.size, source.fps
        self.count = source.count

    def frames(self, *, start: int = 0, colour: bool = False):
        for frame in self.source.frames(start=start, colour=colour):
            if frame.index >= self.after:
                raise self.error
            yield frame


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_a_run_goes_on_where_it_stopped(error, recording, tmp_path) -> None:
    whole = run(recording.source, tracker(recording.camera), tmp_path / "whole")
    with pytest.raises(error):
        run(Stops(recording.source, 5, error), tracker(recording.camera), tmp_path / "parts")
    assert [p.name for p in (tmp_path / "parts").iterdir()] == ["unfinished.jsonl"]
    resumed = run(recording.source, tracker(recording.camera), tmp_path / "parts")
    assert resumed.summary["resumed_after"] == 5
    assert (tmp_path / "parts/rotation.csv").read_bytes() == (
        tmp_path / "whole/rotation.csv"
    ).read_bytes()
    assert whole.summary["resumed_after"] == 0


def test_a_stopped_stream_is_a_result(recording, tmp_path) -> None:
    stream = Stops(recording.source, 6, KeyboardInterrupt, live=True)
    result = run(stream, tracker(recording.camera), tmp_path / "out")
    assert len(result.trajectory) == 6


def test_results_are_not_overwritten_unasked(recording, tmp_path) -> None:
    run(recording.source, tracker(recording.camera), tmp_path, formats=["csv", "tum"])
    with pytest.raises(FileExistsError, match=r"rotation.csv exists already"):
        run(recording.source, tracker(recording.camera), tmp_path)
    run(recording.source, tracker(recording.camera), tmp_path, overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["rotation.csv", "summary.json"]


def test_a_part_of_the_frames(recording, tmp_path) -> None:
    source = open_source(recording.source.name, fps=25, stop=9)
    result = run(source, tracker(recording.camera), tmp_path, start=3)
    assert result.trajectory.frames.tolist() == [3, 4, 5, 6, 7, 8]
    assert step_errors(result.trajectory.steps, recording.truth.steps[3:8]).max() < 0.05


@pytest.mark.parametrize(
    ("start", "message"), [(12, "no frame could be read"), (11, "only one frame could be read")]
)
def test_too_few_frames_are_said(start, message, recording, tmp_path) -> None:
    with pytest.raises(ValueError, match=message):
        run(recording.source, tracker(recording.camera), tmp_path, start=start)
    assert list(tmp_path.iterdir()) == []


def test_unknown_format_is_found_before_the_work(recording, tmp_path) -> None:
    with pytest.raises(ValueError, match="no output format 'xml'"):
        run(recording.source, tracker(recording.camera), tmp_path, formats=["xml"])


def test_progress_shows_share_and_rate() -> None:
    stream = io.StringIO()
    meter = Progress(8, stream, resumed=4)
    for _ in range(4):
        meter.step()
    meter.finish()
    assert stream.getvalue().startswith("8/8 frames, 100 %")
    assert "frames/s" in stream.getvalue()


SLOW = """
import sys, time
from pathlib import Path
from visionlab.rotation.estimator import RotationEstimator
from visionlab.rotation.flow import LucasKanade
from visionlab.rotation.pipeline import run
from visionlab.rotation.sequences import read_sequence
from visionlab.rotation.tracking import RotationTracker

class Slow(LucasKanade):
    def __call__(self, a, b):
        time.sleep(0.3)
        return super().__call__(a, b)

recording = read_sequence(sys.argv[1])
tracker = RotationTracker(
    recording.camera, Slow(), RotationEstimator(recording.camera, grid_step=8))
run(recording.source, tracker, sys.argv[2])
"""


def test_a_killed_process_loses_nothing(recording, clip, tmp_path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", SLOW, str(clip), str(tmp_path / "out")]
    process = subprocess.Popen(command, env=environment)
    journal = tmp_path / "out/unfinished.jsonl"
    limit = time.monotonic() + 60
    while not journal.exists() or len(journal.read_bytes().splitlines()) < 4:
        assert process.poll() is None
        assert time.monotonic() < limit
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    result = run(recording.source, tracker(recording.camera), tmp_path / "out")
    assert result.summary["resumed_after"] >= 3
    whole = run(recording.source, tracker(recording.camera), tmp_path / "whole")
    assert np.array_equal(result.trajectory.quaternions, whole.trajectory.quaternions)
