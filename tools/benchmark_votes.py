"""Times of the vote and of whole calls beside the published rule, and parity with it.

    python tools/benchmark_votes.py                 # parity on 1,000 flows, vote, call, batch
    python tools/benchmark_votes.py --flows 100 --seed 3

Times are CPU milliseconds of one thread, so that other work on the machine hardly enters: the
median over flows of the median over repeats. The published rule is measured on the same flows in
the same run. Only the scaling over threads is wall time (the fastest of many) and needs idle cores.
"""

import argparse
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from visionlab.rotation.baselines import published, published_points
from visionlab.rotation.estimator import RotationEstimator
from visionlab.rotation.lines import Grid, lines_from_plane
from visionlab.rotation.scenes import SCENARIOS, Scene, make_scene
from visionlab.rotation.solver import voting_lines
from visionlab.rotation.voting import vote

PAPER = Grid.for_range(1e-3, 0.07, "linear")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--flows", type=int, default=1000, help="flows of the parity check")
    p.add_argument("--timed", type=int, default=8, help="flows per scene that are timed")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--repeats", type=int, default=7)
    options = p.parse_args(arguments)
    print(parity(options.flows, seed=options.seed))
    print(times(options.timed, seed=options.seed, repeats=options.repeats))
    print(batch(seed=options.seed, repeats=options.repeats))
    return 0


def sampled(scene: Scene, step: int) -> tuple[Any, Any]:
    """Tracks of the published grid, which starts at pixel 0."""
    points = published_points(scene.camera, step)
    return points, points + scene.flow[::step, ::step].reshape(-1, 2)


def fast_vote(scene: Scene, start: Any, end: Any) -> Any:
    """Our vote by the published rule, line set-up included."""
    camera = scene.camera
    rows = np.ascontiguousarray(
        np.concatenate([camera.normalise(start), camera.normalise(end)], 1).T
    )
    lines = voting_lines(rows, PAPER, "linear", "numba")
    return vote(lines, bins=PAPER.bins, search="full")


def parity(count: int, *, seed: int) -> str:
    """Share of flows on which the vote finds the published rule's winner."""
    same = 0
    names = list(SCENARIOS)
    for number in range(count):
        scene = make_scene(names[number % len(names)], number // len(names), seed=seed)
        start, end = sampled(scene, 15)
        cell = fast_vote(scene, start, end).cell
        same += bool(
            np.abs(PAPER.rotvec(cell, "linear") - published(start, end, scene.camera)).max() < 1e-9
        )
    return f"same winner as the published rule: {same} of {count} flows (seed {seed})"


def cpu_time(call: Callable[[], Any], repeats: int) -> float:
    """CPU milliseconds of the median of several calls, after one to warm up."""
    call()
    spent = []
    for _ in range(repeats):
        begin = time.thread_time()
        call()
        spent.append(time.thread_time() - begin)
    return float(np.median(spent)) * 1e3


def fastest(call: Callable[[], Any], repeats: int) -> float:
    """Wall milliseconds of the fastest of several calls, after one to warm up."""
    call()
    best = np.inf
    for _ in range(repeats):
        begin = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - begin)
    return best * 1e3


def times(count: int, *, seed: int, repeats: int) -> str:
    """One row per scene: votes and whole calls, ours and the published rule."""
    head = "scene  published   vote  ratio | published step 5   vote  ratio |  irls   fast  joint"
    rows = [head]
    for name in SCENARIOS:
        columns: list[list[float]] = []
        for index in range(count):
            scene = make_scene(name, index, seed=seed)
            start, end = sampled(scene, 15)
            dense_start, dense_end = sampled(scene, 5)
            irls, fast, joint = (
                RotationEstimator(scene.camera),
                RotationEstimator.preset("fast", scene.camera),
                RotationEstimator(scene.camera, refine="joint"),
            )
            columns.append(
                [
                    cpu_time(partial(published, start, end, scene.camera), 2),
                    cpu_time(partial(fast_vote, scene, start, end), repeats),
                    cpu_time(partial(published, dense_start, dense_end, scene.camera), 1),
                    cpu_time(partial(fast_vote, scene, dense_start, dense_end), repeats),
                    *(cpu_time(partial(e, scene.flow), repeats) for e in (irls, fast, joint)),
                ]
            )
        t = np.median(np.array(columns), 0)
        rows.append(
            f"{name:5s} {t[0]:10.2f} {t[1]:6.3f} {t[0] / t[1]:6.1f} | {t[2]:16.1f} {t[3]:6.3f} "
            f"{t[2] / t[3]:6.1f} | {t[4]:5.3f} {t[5]:6.3f} {t[6]:6.3f}"
        )
    return "\n".join(rows)


def batch(*, seed: int, repeats: int) -> str:
    """Frames per second of the batched vote and of the batched call on one and on two threads."""
    scenes = [make_scene(f"S{i % 4}", i, seed=seed) for i in range(16)]
    camera = scenes[0].camera
    flows = np.stack([s.flow for s in scenes])
    starts = [sampled(s, 15) for s in scenes]
    lines = np.stack(
        [
            lines_from_plane(camera.normalise(a), camera.normalise(b), grid=PAPER)
            for a, b in (starts[i % 16] for i in range(64))
        ]
    )
    estimators = {n: RotationEstimator(camera, num_threads=n) for n in (1, 2)}
    out = []
    for label, frames, call in (
        ("vote", 64, lambda n: vote(lines, bins=PAPER.bins, num_threads=n)),
        ("call", 16, lambda n: estimators[n].batch(flows)),
    ):
        one, two = (fastest(partial(call, n), 5 * repeats) for n in (1, 2))
        out.append(
            f"batch {label}: {one / frames:.3f} ms a frame on one thread, "
            f"{two / frames:.3f} on two: {one / two:.2f}x"
        )
    return "\n".join(out)


if __name__ == "__main__":
    raise SystemExit(main())
