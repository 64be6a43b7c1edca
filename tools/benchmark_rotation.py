"""Camera rotation of a video: estimate it, judge it, compare it with every rival.

python tools/benchmark_rotation.py run clip.mp4 --fov 60 --plots
python tools/benchmark_rotation.py eval clip_rotation ground_truth.csv
python tools/benchmark_rotation.py compare SEQUENCE --focal 413.75 --scenes S1 S2
python tools/benchmark_rotation.py generate photo.jpg --output clip --movers 8
"""

import argparse
import json
import logging
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

USER_ERROR, TRUNCATED, STOPPED = 2, 1, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand; what the user did wrong ends in one sentence and exit code 2."""
    options = parser().parse_args(arguments)
    level = logging.WARNING if getattr(options, "quiet", False) else logging.INFO
    logging.basicConfig(level=level, format="%(message)s", stream=sys.stderr)
    try:
        return int(options.command(options))
    except (ValueError, TypeError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from here", file=sys.stderr)
        return STOPPED


def parser() -> argparse.ArgumentParser:
    """All subcommands and their options."""
    top = argparse.ArgumentParser(
        prog="benchmark_rotation.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(required=True, metavar="run | eval | compare | generate")
    _add_run(commands)
    _add_eval(commands)
    _add_compare(commands)
    _add_generate(commands)
    return top


def at_least(least: int) -> Callable[[str], int]:
    """Type of an option that counts something."""

    def count(text: str) -> int:
        if not re.fullmatch(r"[+-]?\d+", text) or int(text) < least:
            raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of {least} or more")
        return int(text)

    return count


def _add_run(commands: Any) -> None:
    p = commands.add_parser("run", help="rotation of every frame of a video, folder or stream")
    p.set_defaults(command=run)
    p.add_argument("source", help="video, folder of pictures, camera number or stream URL")
    p.add_argument("--output", type=Path, help="folder of the results (NAME_rotation)")
    _add_camera(p)
    _add_flow(p)
    _add_estimator(p)
    p.add_argument("--mask", type=Path, help="picture, or folder with one a frame; white is used")
    p.add_argument("--invert-mask", action="store_true", help="black is used instead")
    p.add_argument("--start", type=at_least(0), default=0, metavar="N", help="first frame")
    p.add_argument("--stop", type=at_least(1), metavar="N", help="frame after the last")
    p.add_argument("--fps", type=float, help="rate of a folder, or instead of a video's own times")
    p.add_argument("--width", type=int, metavar="PX", help="reduce frames to this width first")
    p.add_argument(
        "--batch", type=at_least(1), default=1, help="pairs per step (dense flow on a GPU)"
    )
    p.add_argument("--prior", action="store_true", help="search around the last frame's answer")
    p.add_argument("--formats", nargs="+", default=["csv"], help="csv jsonl tum gcsv")
    p.add_argument("--plots", action="store_true", help="rates, angles and votes as pictures")
    p.add_argument("--truth", type=Path, help="ground truth: adds it to the pictures, and errors")
    p.add_argument("--stabilise", type=Path, metavar="VIDEO", help="write a steady video too")
    p.add_argument("--smooth", type=float, default=0.5, metavar="S", help="of the steady video")
    p.add_argument("--overwrite", action="store_true", help="replace results, start anew")
    p.add_argument("--quiet", action="store_true", help="no progress")


def _add_eval(commands: Any) -> None:
    p = commands.add_parser("eval", help="errors of an estimate against ground truth")
    p.set_defaults(command=evaluate)
    p.add_argument("estimate", type=Path, help="trajectory file, or the folder of a run")
    p.add_argument("truth", type=Path, help="trajectory file (CSV, JSON lines, TUM, KITTI)")
    p.add_argument("--by", choices=("frame", "time"), default="frame", help="how rows meet")
    p.add_argument("--seed", type=at_least(0), default=0, help="of the bootstrap")
    p.add_argument("--json", type=Path, help="write the table here too")
    p.add_argument("--plot", type=Path, help="histogram of the errors")


def _add_compare(commands: Any) -> None:
    p = commands.add_parser("compare", help="ours and every rival on the same correspondences")
    p.set_defaults(command=compare)
    p.add_argument("sequences", nargs="*", type=Path, help="recordings with ground truth")
    p.add_argument("--format", help="of the recordings (found out by itself)")
    p.add_argument("--scenes", nargs="+", default=[], metavar="S0", help="synthetic flows S0 to S5")
    p.add_argument("--count", type=at_least(1), default=40, help="flows per scene")
    p.add_argument("--seed", type=at_least(0), default=1, help="of the scenes")
    p.add_argument("--limit", type=at_least(1), help="pairs per recording")
    p.add_argument("--stride", type=at_least(1), default=1, help="take every so many pairs")
    p.add_argument("--methods", nargs="+", default=["*"], help="names or wildcards")
    p.add_argument(
        "--repeats", type=at_least(1), default=1, help="timings per pair; the fastest counts"
    )
    p.add_argument("--json", type=Path, help="write the table here too")
    p.add_argument("--quiet", action="store_true")
    _add_camera(p)
    _add_flow(p)


def _add_generate(commands: Any) -> None:
    p = commands.add_parser("generate", help="virtual pan-tilt-roll camera: exact ground truth")
    p.set_defaults(command=generate)
    p.add_argument("source", type=Path, help="photograph, folder or video of a static camera")
    p.add_argument("--output", type=Path, required=True, help="folder for frames and gt.csv")
    p.add_argument("--size", type=int, nargs=2, default=(480, 270), metavar=("W", "H"))
    p.add_argument("--focal", type=float, default=413.75, help="px, of the output")
    p.add_argument("--source-fov", type=float, default=73.0, help="degrees, horizontal")
    p.add_argument("--frames", type=at_least(2), default=150)
    p.add_argument("--fps", type=float, default=25.0)
    p.add_argument("--peak", type=float, default=5.0, metavar="DEG", help="largest angle per axis")
    p.add_argument(
        "--movers", type=at_least(0), default=0, help="rectangles that move in the world"
    )
    p.add_argument("--noise", type=float, default=0.0, help="grey levels")
    p.add_argument("--seed", type=at_least(0), default=0)


def _add_camera(p: argparse.ArgumentParser) -> None:
    group = p.add_argument_group("camera (one of the three)")
    one = group.add_mutually_exclusive_group()
    one.add_argument("--focal", type=float, metavar="PX", help="focal length in px")
    one.add_argument("--fov", type=float, metavar="DEG", help="horizontal field of view")
    one.add_argument("--camera", type=Path, metavar="FILE", help="calibration file")
    group.add_argument(
        "--centre", type=float, nargs=2, metavar=("CX", "CY"), help="principal point in px"
    )
    group.add_argument(
        "--fit-camera", action="store_true", help="scale a calibration of another picture size"
    )


def _add_flow(p: argparse.ArgumentParser) -> None:
    group = p.add_argument_group("optical flow")
    group.add_argument("--flow", default="lk", help="lk (default), dis or raft")
    group.add_argument("--preset", help="of dis: ultrafast, fast, medium (default)")
    group.add_argument("--weights", type=Path, help="of raft: state dict of torchvision's network")
    group.add_argument("--network", default="raft_small", help="of raft: raft_small, raft_large")
    group.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    group.add_argument(
        "--threads", type=at_least(0), default=0, help="of OpenCV and the vote (0: all)"
    )


def _add_estimator(p: argparse.ArgumentParser) -> None:
    group = p.add_argument_group("estimator")
    group.add_argument("--refine", help="irls, joint (models translation) or none")
    group.add_argument("--estimator", metavar="PRESET", help="preset of RotationEstimator")
    group.add_argument("--max-angle", type=float, metavar="DEG", help="range per axis")
    group.add_argument("--bin-size", type=float, metavar="DEG", help="cell of the vote")


def run(options: argparse.Namespace) -> int:
    """``run``: a video in, files out."""
    from visionlab.rotation import command

    result = command.run(options, progress=None if options.quiet else sys.stderr)
    print(json.dumps({k: v for k, v in result.summary.items() if k != "settings"}, indent=2))
    for path in result.files:
        print(path)
    if result.summary["truncated"]:
        print(
            f"error: {options.source} is truncated or damaged: {result.summary['frames']} frames "
            "could be decoded, fewer than it declares; the results hold these",
            file=sys.stderr,
        )
        return TRUNCATED
    return 0


def evaluate(options: argparse.Namespace) -> int:
    """``eval``: a table of errors, zero and least squares beside."""
    from visionlab.rotation import command

    print(command.evaluate(options))
    return 0


def compare(options: argparse.Namespace) -> int:
    """``compare``: one table with accuracy and milliseconds."""
    from visionlab.rotation import command

    print(command.compare(options))
    return 0


def generate(options: argparse.Namespace) -> int:
    """``generate``: frames, ``gt.csv`` and ``cameras.txt`` in a folder."""
    from visionlab.rotation.sequences import VirtualCamera

    clip = VirtualCamera(
        options.source,
        size=tuple(options.size),
        focal=options.focal,
        frames=options.frames,
        fps=options.fps,
        source_fov=options.source_fov,
        peak_deg=options.peak,
        movers=options.movers,
        noise=options.noise,
        seed=options.seed,
    )
    print(clip.write(options.output))
    return 0


if __name__ == "__main__":
    sys.exit(main())
