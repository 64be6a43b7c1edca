"""Time of the rotation vote, the refinement and whole estimates on a GPU, per frame.

    python tools/benchmark.py cuda                     # prebuilt library if there is one, and NVRTC
    python tools/benchmark.py cuda --device cpu        # the same rows by numba and torch on the CPU

Each way to get the kernels runs in a process of its own. Times are medians of repeats, each over
enough calls to last; winners are compared with numba's, bit for bit, before anything is timed.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from visionlab.figures import Claim, Column, Figure, FigureTable, at_most, measured, publish
from visionlab.rotation import batched, device, native, op
from visionlab.rotation.camera import Camera
from visionlab.rotation.estimator import RotationEstimator
from visionlab.rotation.lines import Grid, lines_from_plane
from visionlab.rotation.scenes import make_scene
from visionlab.rotation.voting import vote

GRID = Grid(1e-3, 141)


class Row(NamedTuple):
    """One line of the table."""

    what: str
    lines: int
    frames: int
    microseconds: float
    """Per frame, median."""
    target: str


def clock(call: Callable[[], object], where: str, *, repeats: int, calls: int) -> float:
    """Median time of one call in microseconds: ``calls`` are queued, then waited for."""
    wait = torch.cuda.synchronize if where == "cuda" else lambda: None
    call()
    wait()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        for _ in range(calls):
            call()
        wait()
        times.append((time.perf_counter() - start) / calls * 1e6)
    return statistics.median(times)


def flows_of(frames: int) -> tuple[Camera, np.ndarray]:
    """(camera, (frames, 270, 480, 2) float32) of handheld crowds; 16 scenes in turn."""
    scenes = [make_scene("S1", index=i, seed=3) for i in range(min(frames, 16))]
    return scenes[0].camera, np.stack([scenes[i % len(scenes)].flow for i in range(frames)])


def lines_of(camera: Camera, flows: np.ndarray, step: int) -> np.ndarray:
    """(frames, N, 4) voting lines of every ``step``-th pixel."""
    grid = RotationEstimator(camera, grid_step=step).voting_grid
    plane0 = camera.normalise(grid.points)
    moved = grid.points + flows[(slice(None), *grid.window)].reshape(len(flows), -1, 2)
    plane1 = camera.normalise(moved)
    return lines_from_plane(np.broadcast_to(plane0, plane1.shape), plane1, grid=GRID)


def check_votes(lines: Tensor) -> None:
    """Compare the winners of 16 frames with numba's.

    Raises:
        AssertionError: a winner or its votes differ.
    """
    some = lines[:16]
    winner, expected = op.hough_vote(some, bins=GRID.bins), vote(some.cpu().numpy(), bins=GRID.bins)
    np.testing.assert_array_equal(winner.cell.cpu(), expected.cell)
    np.testing.assert_array_equal(winner.votes.cpu(), expected.votes)


def measure(where: str, *, frames: int, repeats: int) -> list[Row]:
    """All rows on one device."""
    rows = []
    camera, flows = flows_of(frames)
    single = "25 by the built op, 70 by NVRTC"
    cases = [(15, 1, single), (15, frames, "2"), (5, frames, ""), (1, min(frames, 16), "")]
    for number, (step, count, target) in enumerate(cases):
        lines = torch.from_numpy(lines_of(camera, flows[:count], step)).to(where)
        check_votes(lines)
        calls = (200 if count == 1 else 10) if where == "cuda" else 1

        def call(lines: Tensor = lines) -> object:
            return op.hough_vote(lines, bins=GRID.bins)

        spent = clock(call, where, repeats=repeats, calls=calls)
        rows.append(Row("vote", lines.shape[1], count, spent / count, target))
        if number == 0:
            waited = clock(lambda: call().cell.item(), where, repeats=repeats, calls=calls)  # type: ignore[attr-defined]
            rows.append(Row("vote, answer on the host", lines.shape[1], 1, waited, ""))
    return rows + measure_chain(camera, torch.from_numpy(flows).to(where), where, repeats=repeats)


def measure_chain(camera: Camera, flows: Tensor, where: str, *, repeats: int) -> list[Row]:
    """What surrounds the vote: lines, refinement, and the estimator's whole answer."""
    estimator = RotationEstimator(camera)
    sparse = device.gather(estimator.voting_grid, flows)
    dense = device.gather(estimator.dense_grid, flows)

    def vote_from_planes() -> Tensor:
        planes = (sparse.rows[:, :2].mT, sparse.rows[:, 2:4].mT)
        return batched.vote(*planes, grid=GRID)[0]

    start = vote_from_planes()
    works: dict[str, Callable[[], object]] = {
        "lines + vote": vote_from_planes,
        "refinement": lambda: batched.refine(dense.rows, start, first_scale=1.0, complete=True),
        "estimate_batch, verdicts included": lambda: device.estimate_batch(estimator, flows),
    }
    counts = (sparse.rows.shape[-1], dense.rows.shape[-1], dense.rows.shape[-1])
    rows = []
    for (what, work), count in zip(works.items(), counts):
        spent = clock(work, where, repeats=repeats, calls=1)
        rows.append(Row(what, count, len(flows), spent / len(flows), ""))
    return rows


def table(title: str, rows: list[Row]) -> str:
    """Markdown."""
    head = [f"### {title}", "", "| what | lines | frames | us per frame | target |"]
    head.append("|---|---|---|---|---|")
    return "\n".join(
        head
        + [
            f"| {r.what} | {r.lines} | {r.frames} | {r.microseconds:.2f} | {r.target} |"
            for r in rows
        ]
    )


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--frames", type=int, default=256, help="frames of a batch")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", type=Path, help="write the rows there as well")
    parser.add_argument("--only", choices=("prebuilt", "nvrtc", "cpu"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.frames < 2:
        parser.error(f"--frames is {options.frames}; a batch has 2 or more, one frame is timed too")
    if options.device == "cuda" and not torch.cuda.is_available():
        print(
            "benchmark cuda: torch sees no CUDA device; --device cpu runs the CPU twins",
            file=sys.stderr,
        )
        return 2
    if options.only is not None:
        rows = measure(options.device, frames=options.frames, repeats=options.repeats)
        print(json.dumps([row._asdict() for row in rows]))
        return 0
    print(f"torch {torch.__version__}, {machine(options.device)}")
    ways = ["cpu"] if options.device == "cpu" else ["nvrtc"]
    if options.device == "cuda" and native.LIBRARY.is_file():
        ways.insert(0, "prebuilt")
    results = {way: run_alone(way, options) for way in ways}
    for way, rows in results.items():
        print("\n" + table(way, rows))
        publish(figures_of(way, rows, options.repeats))
    if options.json is not None:
        plain = {way: [row._asdict() for row in rows] for way, rows in results.items()}
        options.json.write_text(json.dumps(plain, indent=1) + "\n")
    return 0


def figures_of(way: str, rows: list[Row], repeats: int) -> FigureTable:
    """The rows as records; what is claimed depends on how the kernels were made."""
    single = {"prebuilt": 25.0, "nvrtc": 70.0}
    figures = []
    for row in rows:
        claims: list[Claim] = []
        if way in single and row.what == "vote" and row.lines == 576:
            claims = [at_most("us", single[way] if row.frames == 1 else 2.0)]
        name = f"{row.what}, {row.lines:,} lines, {row.frames} frame(s)"
        figures.append(Figure(name, {"us": row.microseconds}, claims=claims))
    return measured(
        f"rotation.kernels_{way}",
        f"Vote, refinement and whole estimates, kernels by {way}",
        head="work",
        columns=[Column("microseconds a frame", "{us:.2f}")],
        figures=figures,
        note=f"Medians of {repeats} repeats; winners equal numba's bit for bit.",
        units={"us": "microseconds a frame"},
        device="cpu" if way == "cpu" else "gpu",
    )


def machine(where: str) -> str:
    """What the numbers were taken on."""
    if where == "cuda":
        return torch.cuda.get_device_name()
    return f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"


def run_alone(way: str, options: argparse.Namespace) -> list[Row]:
    """The rows of one way to get the kernels, from a process of its own."""
    command = [sys.executable, __file__, "--device", options.device, "--only", way]
    command += ["--frames", str(options.frames), "--repeats", str(options.repeats)]
    policy = {} if way == "cpu" else {native.SWITCH: way}
    printed = subprocess.run(
        command, env={**os.environ, **policy}, check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    return [Row(**row) for row in json.loads(printed.splitlines()[-1])]


if __name__ == "__main__":
    sys.exit(main())
