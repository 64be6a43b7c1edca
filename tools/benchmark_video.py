"""Frames a second from a video to its CSV, one thread, decoding and start included.

    python tools/benchmark.py video                      a clip made from a generated picture
    python tools/benchmark.py video clip.mp4 --focal 413.75

Runs ``tools/benchmark_rotation.py run`` as a user would, in a process of its own.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from visionlab.figures import Column, Figure, FigureTable, at_least, measured, publish

TOOL = Path(__file__).with_name("benchmark_rotation.py")
SIZE, FOCAL, FRAMES = (480, 270), 413.75, 300
WAYS = {
    "`lk`": ([], 40.0),
    "`lk`, `--refine joint`": (["--refine", "joint"], None),
    "`dis`, `ultrafast`": (["--flow", "dis", "--preset", "ultrafast"], 200.0),
    "`dis`, `ultrafast`, `--estimator fast`": (
        ["--flow", "dis", "--preset", "ultrafast", "--estimator", "fast"],
        None,
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    p = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    p.add_argument("video", nargs="?", type=Path, help="a video instead of the generated clip")
    p.add_argument("--focal", type=float, default=FOCAL, help="of the video, px")
    args = p.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        clip = args.video or make_clip(folder / "clip.mp4")
        rate(clip, args.focal, [], folder / "warm")  # loops are compiled once per machine
        figures = []
        for number, (name, (options, limit)) in enumerate(WAYS.items()):
            values = rate(clip, args.focal, options, folder / str(number))
            print(f"{name:40s} {values['fps']:.0f} frames/s", flush=True)
            claims = [at_least("fps", limit)] if limit is not None else []
            figures.append(Figure(name, values, claims=claims))
    publish(table_of(figures))
    return 0


def make_clip(path: Path) -> Path:
    """A virtual pan over a generated picture, as an mp4 file."""
    import cv2

    from visionlab.rotation.sequences import VirtualCamera

    rng = np.random.default_rng(7)
    layers = [(c, cv2.resize(rng.normal(size=(c * 3 // 4, c)), (1280, 960))) for c in (8, 30, 90)]
    total = sum(layer / c**0.3 for c, layer in layers)
    photo = ((total - total.min()) / np.ptp(total) * 255).astype(np.uint8)
    camera = VirtualCamera(photo, size=SIZE, focal=FOCAL, frames=FRAMES, seed=3)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25.0, SIZE)
    for frame in camera.frames(colour=True):
        writer.write(frame.image)
    writer.release()
    return path


def rate(clip: Path, focal: float, options: Sequence[str], output: Path) -> dict[str, float]:
    """Frames a second, by the wall clock and by processor time."""
    command = [sys.executable, str(TOOL), "run", str(clip), "--focal", str(focal), "--threads", "1"]
    subprocess.run(
        [*command, *options, "--output", str(output), "--quiet"],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    summary = json.loads((output / "summary.json").read_text(encoding="utf-8"))
    frames = summary["frames"]
    return {"fps": summary["frames_per_second"], "cpu_fps": frames / summary["cpu_seconds"]}


def table_of(figures: Sequence[Figure]) -> FigureTable:
    """The records."""
    return measured(
        "rotation.video",
        "Video to CSV at 480x270, one thread, decoding included",
        head="flow",
        columns=[
            Column("frames/s", "{fps:.0f}"),
            Column("frames/s of processor time", "{cpu_fps:.0f}"),
        ],
        figures=figures,
        note="`python tools/benchmark_rotation.py run CLIP --focal 413.75 --threads 1 ...`",
        chart="fps",
        units={"fps": "frames/s", "cpu_fps": "frames/s CPU time"},
    )


if __name__ == "__main__":
    sys.exit(main())
