"""Times of the vote and of whole calls beside the published rule, and parity with it.

    python tools/benchmark.py votes                 # parity on 1,000 flows, vote, call, batch
    python tools/benchmark.py votes --flows 100 --seed 3

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

from visionlab.figures import (
    Claim,
    Column,
    Figure,
    FigureTable,
    at_least,
    at_most,
    measured,
    publish,
)
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
    same = parity(options.flows, seed=options.seed)
    print(f"{same.what}: {same.values['same']} of {options.flows} flows (seed {options.seed})")
    publish(parity_table(same, options.seed))
    figures = times(options.timed, seed=options.seed, repeats=options.repeats)
    publish(times_table(figures, options))
    figures = batch(seed=options.seed, repeats=options.repeats)
    publish(batch_table(figures))
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


def parity(count: int, *, seed: int) -> Figure:
    """Number of flows on which the vote finds the published rule's winner."""
    same = 0
    names = list(SCENARIOS)
    for number in range(count):
        scene = make_scene(names[number % len(names)], number // len(names), seed=seed)
        start, end = sampled(scene, 15)
        cell = fast_vote(scene, start, end).cell
        same += bool(
            np.abs(PAPER.rotvec(cell, "linear") - published(start, end, scene.camera)).max() < 1e-9
        )
    values = {"same": same, "flows": count, "share": 100 * same / count}
    return Figure("same winner as the published rule", values, claims=[at_least("share", 100)])


def parity_table(figure: Figure, seed: int) -> FigureTable:
    """The record of `parity`."""
    return measured(
        "rotation.parity",
        "The vote finds the published rule's winner",
        head="vote",
        columns=[Column("flows", "{same:,} of {flows:,}")],
        figures=[figure],
        note=f"Scenes S0 to S5 in turn, step 15, linear geometry, seed {seed}.",
        units={"share": "%"},
    )


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


def times(count: int, *, seed: int, repeats: int) -> list[Figure]:
    """One figure per scene: votes and whole calls, ours and the published rule."""
    names = ("published", "vote", "published_5", "vote_5", "irls", "fast", "joint")
    figures = []
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
        table = np.array(columns)
        values = dict(zip(names, (float(x) for x in np.median(table, 0))))
        values |= {"faster": values["published"] / values["vote"],
                   "faster_5": values["published_5"] / values["vote_5"]}  # fmt: skip
        spread = {n: [float(c.min()), float(c.max())] for n, c in zip(names, table.T)}
        print(name, " ".join(f"{k} {v:.3f}" for k, v in values.items()), flush=True)
        figures.append(Figure(name, values, spread=spread, claims=_claims(name)))
    return figures


def _claims(name: str) -> list[Claim]:
    """What is claimed of a scene's times; the vote's factor is claimed for S0 to S3."""
    claims = [at_most("vote", 0.4), at_most("irls", 0.9), at_most("fast", 0.4)]
    claims.append(at_most("joint", 5.0))
    if name in ("S0", "S1", "S2", "S3"):
        claims += [at_least("faster", 18), at_least("faster_5", 35)]
    return claims


def times_table(figures: list[Figure], options: argparse.Namespace) -> FigureTable:
    """The records of `times`."""
    return measured(
        "rotation.times",
        "Vote and whole call at 270x480, one thread, CPU ms",
        head="scene",
        columns=[
            Column("published rule, step 15", "{published:.2f}"),
            Column("vote", "{vote:.3f}"),
            Column("faster", "{faster:.0f}x"),
            Column("published rule, step 5", "{published_5:.1f}"),
            Column("vote", "{vote_5:.2f}"),
            Column("faster", "{faster_5:.0f}x"),
            Column("call `irls`", "{irls:.2f}"),
            Column("`fast`", "{fast:.2f}"),
            Column("`joint`", "{joint:.2f}"),
        ],
        figures=figures,
        note=f"Median over {options.timed} flows of the median of {options.repeats} calls.",
        units=dict.fromkeys(("published", "vote", "irls", "fast", "joint"), "ms CPU time"),
    )


def batch(*, seed: int, repeats: int) -> list[Figure]:
    """Milliseconds a frame of the batched vote and the batched call on one and on two threads."""
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
    figures = []
    for label, frames, call in (
        ("vote", 64, lambda n: vote(lines, bins=PAPER.bins, num_threads=n)),
        ("call", 16, lambda n: estimators[n].batch(flows)),
    ):
        one, two = (fastest(partial(call, n), 5 * repeats) for n in (1, 2))
        values = {"one": one / frames, "two": two / frames, "scaling": one / two}
        print(f"batch {label}:", " ".join(f"{k} {v:.3f}" for k, v in values.items()), flush=True)
        # one thread runs a batch frame by frame: only the vote is the same kernel on both
        claims = [at_least("scaling", 1.8)] if label == "vote" else []
        figures.append(Figure(f"{label}, {frames} frames", values, claims=claims))
    return figures


def batch_table(figures: list[Figure]) -> FigureTable:
    """The records of `batch`."""
    return measured(
        "rotation.batch",
        "Batches on one and on two threads",
        head="batch",
        columns=[
            Column("ms a frame, one thread", "{one:.3f}"),
            Column("two threads", "{two:.3f}"),
            Column("faster", "{scaling:.2f}x"),
        ],
        figures=figures,
        note="Wall time, fastest of many; two threads need two idle cores. The vote is one kernel "
        "on both. A call runs frame by frame on one thread and as one kernel over whole frames on "
        "two, which saves more than the second core gives: no scaling.",
        units={"one": "ms", "two": "ms"},
    )


if __name__ == "__main__":
    raise SystemExit(main())
