"""The command line: outputs, tables, and one sentence for whatever is wrong."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from visionlab.rotation.sequences import VirtualCamera, read_sequence
from visionlab.rotation.trajectory_files import read_trajectory, write_csv

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools" / "benchmark_rotation.py"
_SPEC = importlib.util.spec_from_file_location("benchmark_rotation", TOOL)
tool = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(tool)


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    rng = np.random.default_rng(7)
    layers = [(c, cv2.resize(rng.normal(size=(c * 3 // 4, c)), (640, 480))) for c in (8, 30, 90)]
    total = sum(layer / c**0.3 for c, layer in layers)
    scaled = (total - total.min()) / np.ptp(total) * 255
    return scaled.astype(np.uint8)


@pytest.fixture(scope="module")
def clip(photo, tmp_path_factory) -> Path:
    """A folder of 20 frames of 240x136, focal 210 px, with ``gt.csv`` and ``cameras.txt``."""
    camera = VirtualCamera(photo, size=(240, 136), focal=210.0, frames=20, seed=3, peak_deg=3.0)
    return camera.write(tmp_path_factory.mktemp("clip") / "turn")


@pytest.fixture(scope="module")
def video(clip) -> Path:
    path = clip.parent / "turn.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"FFV1"), 25.0, (240, 136))
    for frame in read_sequence(clip).source.frames(colour=True):
        writer.write(frame.image)
    writer.release()
    return path


@pytest.fixture
def call(monkeypatch, tmp_path, capsys) -> Callable[..., tuple[int, str, str]]:
    """``call("run", ...)`` -> exit code, standard output, standard error; in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, str]:
        code = tool.main([str(a) for a in arguments])
        out, error = capsys.readouterr()
        return code, out, error

    return run


def test_run_writes_everything_that_is_asked_for(call, video, clip, tmp_path) -> None:
    code, out, _ = call(
        "run", video, "--focal", 210, "--formats", "csv", "jsonl", "tum", "gcsv", "--plots",
        "--truth", clip / "gt.csv", "--stabilise", "steady.mp4", "--threads", 1,
    )  # fmt: skip
    assert code == 0
    names = {p.name for p in (tmp_path / "turn_rotation").iterdir()}
    assert names == {
        "rotation.csv", "rotation.jsonl", "trajectory.tum", "turn.gcsv", "summary.json",
        "rates.png", "rates.npz", "angles.png", "angles.npz", "votes.png", "errors.png",
        "errors.npz",
    }  # fmt: skip
    assert (tmp_path / "steady.mp4").stat().st_size > 1000
    assert "least squares" in out
    truth = read_trajectory(clip / "gt.csv")
    steps = read_trajectory(tmp_path / "turn_rotation/rotation.csv").steps
    assert np.abs(steps - truth.steps).max() < np.radians(0.05)


def test_folder_with_a_calibration_file(call, clip) -> None:
    code, _, _ = call("run", clip / "frames", "--camera", clip / "cameras.txt", "--output", "o")
    assert code == 0


def test_eval_prints_the_baselines_beside(call, video, clip, tmp_path) -> None:
    call("run", video, "--focal", 210, "--output", "o", "--quiet")
    code, out, _ = call("eval", "o", clip / "gt.csv", "--json", "t.json", "--plot", "e.png")
    assert code == 0
    assert [line.split("|")[1].strip() for line in out.splitlines()[2:]] == [
        "estimate",
        "zero",
        "least squares",
    ]
    rows = json.loads((tmp_path / "t.json").read_text())
    assert rows[0]["mean"] < 0.05 < rows[1]["mean"]
    assert (tmp_path / "e.png").exists()


def test_eval_says_where_least_squares_is_missing(call, clip) -> None:
    code, out, _ = call("eval", clip / "gt.csv", clip / "gt.csv")
    assert code == 0
    assert "least squares: not beside this estimate" in out


def test_compare_prints_ours_and_the_rivals(call, clip, tmp_path) -> None:
    code, out, _ = call(
        "compare", clip, "--scenes", "S0", "--count", 2, "--limit", 3, "--json", "c.json",
        "--methods", "ours irls", "zero", "least*", "homography",
    )  # fmt: skip
    assert code == 0
    rows = json.loads((tmp_path / "c.json").read_text())
    assert [(r["case"], r["method"]) for r in rows] == [
        (case, method)
        for case in ("turn", "S0 (seed 1)")
        for method in ("ours irls", "homography", "least squares", "zero")
    ]
    assert all(r["ms min"] > 0 for r in rows)
    assert rows[0]["mean deg"] < 0.03 < rows[3]["mean deg"]
    assert len({len(line) for line in out.splitlines()}) == 1


def test_generate_makes_a_sequence(call, photo, tmp_path) -> None:
    cv2.imwrite(str(tmp_path / "photo.png"), photo)
    code, _, _ = call(
        "generate", "photo.png", "--output", "made", "--size", 160, 90, "--focal", 140,
        "--frames", 4, "--movers", 2, "--noise", 1,
    )  # fmt: skip
    assert code == 0
    assert len(read_sequence(tmp_path / "made").truth) == 4


def test_a_stopped_run_goes_on(call, video, monkeypatch, tmp_path) -> None:
    from visionlab.rotation import journal

    append = journal.Journal.append

    def stop(self, row) -> None:
        if row["frame"] == 7:
            raise KeyboardInterrupt
        append(self, row)

    monkeypatch.setattr(journal.Journal, "append", stop)
    code, _, error = call("run", video, "--focal", 210)
    assert (code, "goes on from here" in error) == (130, True)
    monkeypatch.setattr(journal.Journal, "append", append)
    code, out, _ = call("run", video, "--focal", 210)
    assert code == 0
    assert '"resumed_after": 7' in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "none.mp4", "--focal", 9], "no such video or folder: none.mp4"),
        (["run", "bad.mp4", "--focal", 9], "cannot read bad.mp4 as a video"),
        (["run", "VIDEO"], "the focal length is not known: give --focal"),
        (["run", "VIDEO", "--focal", -200], "fx must be a positive number of pixels"),
        (["run", "VIDEO", "--fov", 190], "field of view"),
        (["run", "VIDEO", "--camera", "none.yaml"], "no calibration file at none.yaml"),
        (["run", "VIDEO", "--camera", "big.txt"], "is for 480x272 px, the frames are 240x136"),
        (["run", "VIDEO", "--focal", 210, "--flow", "lkk"], "Did you mean 'lk'"),
        (["run", "VIDEO", "--focal", 210, "--flow", "raft"], "flow 'raft' needs weights"),
        (["run", "VIDEO", "--focal", 210, "--preset", "fast"], "--preset belongs to --flow dis"),
        (["run", "VIDEO", "--focal", 210, "--refine", "irsl"], "Did you mean 'irls'"),
        (["run", "VIDEO", "--focal", 210, "--max-angle", 200], "is 200 degrees, over 180"),
        (["run", "VIDEO", "--focal", 210, "--bin-size", 30], "no larger than the range"),
        (["run", "VIDEO", "--focal", 210, "--bin-size", 0.0001], "GiB of counters"),
        (["run", "VIDEO", "--focal", 210, "--mask", "none.png"], "no such mask"),
        (["run", "VIDEO", "--focal", 210, "--mask", "small.png"], "mask small.png is 8x8"),
        (["run", "VIDEO", "--focal", 210, "--formats", "xml"], "no output format 'xml'"),
        (["run", "VIDEO", "--focal", 210, "--start", 99], "no frame could be read"),
        (["run", "VIDEO", "--focal", 210, "--start", 19], "only one frame could be read"),
        (["run", "CLIP", "--focal", 210, "--output", "CLIP"], "would lie among the pictures"),
        (["run", "VIDEO", "--focal", 210, "--invert-mask"], "no --mask was given"),
        (["run", "VIDEO", "--focal", 210, "--width", 500], "--width must lie between"),
        (["run", "VIDEO", "--focal", 210, "--output", "done"], "rotation.csv exists already"),
        (["run", "VIDEO", "--focal", 210, "--stabilise", "small.png"], "small.png exists already"),
        (["eval", "none.csv", "TRUTH"], "no such trajectory file"),
        (["eval", "short.csv", "TRUTH", "--by", "time"], "outside the trajectory"),
        (["eval", "TRUTH", "short.csv"], "has 20 frames, the ground truth 5"),
        (["eval", "TRUTH", "bent.csv"], "quaternion 2 has norm"),
        (["compare"], "nothing to compare on"),
        (["compare", "--scenes", "S9", "--count", 1], "S9"),
        (["compare", "--scenes", "S0", "--methods", "mine"], "no method matches mine"),
        (["compare", "none"], "no such sequence"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_bad_input_gets_one_sentence(arguments, message, call, video, clip, tmp_path) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    (tmp_path / "done").mkdir()
    (tmp_path / "done/rotation.csv").write_text("frame\n")
    (tmp_path / "big.txt").write_text("1 SIMPLE_PINHOLE 480 272 420 240 136\n")
    cv2.imwrite(str(tmp_path / "small.png"), np.full((8, 8), 255, np.uint8))
    truth = read_trajectory(clip / "gt.csv")
    lines = (clip / "gt.csv").read_text().splitlines()
    (tmp_path / "short.csv").write_text("\n".join(lines[:6]).replace("0.16,", "9.9,"))
    bent = lines.copy()
    bent[3] = "2,0.08,0.5,0.5,0.5,0.9"
    (tmp_path / "bent.csv").write_text("\n".join(bent))
    assert len(truth) == 20
    places = {"VIDEO": video, "CLIP": clip, "TRUTH": clip / "gt.csv"}
    code, _, error = call(*[places.get(a, a) for a in arguments])
    assert code == 2
    assert message in error
    assert "Traceback" not in error
    last = error.strip().splitlines()[-1]
    assert last.startswith("error: ")


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "VIDEO", "--focal", 210, "--start", -1],
        ["run", "VIDEO", "--focal", 210, "--batch", 0],
        ["run", "VIDEO", "--focal", 210, "--threads", -1],
        ["compare", "--scenes", "S0", "--count", 0],
        ["compare", "--scenes", "S0", "--repeats", "two"],
        ["compare", "--scenes", "S0", "--seed", -1],
        ["generate", "photo.png", "--output", "made", "--movers", -1],
    ],
)
def test_counts_are_checked_at_the_door(arguments, call, capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        call(*arguments)
    assert stop.value.code == 2
    option, value = arguments[-2:]
    assert f"argument {option}: '{value}' is not a whole number of" in capsys.readouterr().err


def test_a_gpu_that_is_not_there_is_said(call, video) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    code, _, error = call("run", video, "--focal", 210, "--flow", "dis", "--device", "cuda")
    assert code == 2
    assert "GPU" in error or "CUDA" in error


def test_a_truncated_video_is_said_and_its_frames_kept(call, photo, tmp_path) -> None:
    """An MPEG program stream cut in the middle: OpenCV opens it and reads what is left."""
    camera = VirtualCamera(photo, size=(240, 136), focal=210.0, frames=60, seed=3, peak_deg=3.0)
    path = tmp_path / "whole.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25.0, (240, 136))
    for frame in camera.frames(colour=True):
        writer.write(frame.image)
    writer.release()
    data = path.read_bytes()
    (tmp_path / "cut.avi").write_bytes(data[: len(data) // 2])
    code, out, error = call("run", "cut.avi", "--focal", 210)
    assert code == 1
    assert "is truncated or damaged" in error
    frames = json.loads(out[: out.rindex("}") + 1])["frames"]
    assert 20 < frames < 35


def test_calibration_of_another_size_can_be_scaled(call, video, tmp_path) -> None:
    (tmp_path / "big.txt").write_text("1 SIMPLE_PINHOLE 480 272 420 240 136\n")
    code, _, _ = call("run", video, "--camera", "big.txt", "--fit-camera", "--output", "a")
    assert code == 0
    code, _, _ = call("run", video, "--focal", 210, "--output", "b")
    first, second = (read_trajectory(tmp_path / n / "rotation.csv").steps for n in "ab")
    assert first == pytest.approx(second, abs=1e-9)


def test_files_of_other_tools_can_be_judged_by_time(call, clip, tmp_path) -> None:
    from visionlab.rotation.trajectory_files import write_tum

    write_tum(read_trajectory(clip / "gt.csv"), tmp_path / "other.tum")
    code, out, _ = call("eval", "other.tum", clip / "gt.csv", "--by", "time")
    assert code == 0
    assert " 0.0000 " in out
    write_csv(read_trajectory(tmp_path / "other.tum"), tmp_path / "again.csv")
    assert call("eval", "again.csv", clip / "gt.csv")[0] == 0


def test_help_is_quick_and_run_needs_no_torch(video, tmp_path) -> None:
    """Processor time, not the clock: other programs may run beside the test."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    times = []
    for _ in range(3):
        before = os.times()
        done = subprocess.run(
            [sys.executable, TOOL, "--help"], env=environment, capture_output=True, check=True
        )
        after = os.times()
        times.append(sum(after[2:4]) - sum(before[2:4]))
    assert b"generate" in done.stdout
    assert min(times) < 1.0
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['x', 'run', {str(video)!r}, '--focal', '210', '--quiet', '--output', 'o']\n"
        "try:\n"
        f"    runpy.run_path({str(TOOL)!r}, run_name='__main__')\n"
        "except SystemExit as end:\n"
        "    assert end.code == 0, end.code\n"
        "assert 'torch' not in sys.modules\n"
        "assert 'matplotlib' not in sys.modules\n"
    )
    command = [sys.executable, "-c", code]
    subprocess.run(command, env=environment, cwd=tmp_path, check=True, capture_output=True)


def test_a_stream_ends_at_its_stop_and_is_a_result(call, video, tmp_path) -> None:
    """FFmpeg plays the file as a stream; nothing tells how long it will be."""
    code, _, _ = call("run", video.as_uri(), "--focal", 210, "--stop", 6, "--output", "live")
    assert code == 0
    chain = read_trajectory(tmp_path / "live/rotation.csv")
    assert len(chain) == 6
    assert np.all(np.diff(chain.times) > 0)  # times of arrival


@pytest.mark.shared_data
def test_figures_on_real_pixels_hold(call, shared_data, tmp_path) -> None:
    """The accuracy that the README states, through the whole tool."""
    easy = shared_data("rotation/semi_vtest_easy.mp4")
    code, _, _ = call("run", easy, "--focal", 413.75, "--output", "easy", "--quiet")
    assert code == 0
    truth = easy.with_name("semi_vtest_easy_gt.csv")
    assert call("eval", "easy", truth, "--json", "easy.json")[0] == 0
    ours, zero, simple = json.loads((tmp_path / "easy.json").read_text())
    assert ours["mean"] <= 0.007 < simple["mean"] < zero["mean"]
    assert ours["flips"] == 0
    drone = shared_data("rotation/euroc_v101_micro")
    call("run", drone / "frames", "--fps", 20, "--focal", 229, "--output", "drone", "--quiet")
    assert call("eval", "drone", drone / "gt.csv", "--json", "drone.json")[0] == 0
    ours, zero, _ = json.loads((tmp_path / "drone.json").read_text())
    assert ours["mean"] <= 0.010 < zero["mean"]
