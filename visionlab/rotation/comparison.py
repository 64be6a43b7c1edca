"""Every method on the same correspondences: accuracy, time, one table.

Ours and each rival that is installed get the same points; the time is that of the rotation alone
(flow is made once, before). A rival that fails on a frame scores the zero rotation there, and its
failures are counted.
"""

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionlab.rotation.baselines import baseline, installed, published_points
from visionlab.rotation.camera import Camera
from visionlab.rotation.continuity import sample
from visionlab.rotation.estimator import RotationEstimator
from visionlab.rotation.evaluation import step_errors, summarise, table_rows
from visionlab.rotation.flow import FlowMethod, Tracks, grid_step
from visionlab.rotation.sequences.base import Sequence as Recording

log = logging.getLogger(__name__)
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Pair:
    """Motion between two frames (dense flow, or tracks) and the true rotation (3,) rad."""

    motion: Any
    truth: Array


@dataclass(frozen=True)
class Case:
    """Frame pairs of one camera under one name."""

    name: str
    camera: Camera
    pairs: Sequence[Pair]
    fps: float = 25.0


@dataclass(frozen=True)
class Method:
    """A way from motion to a rotation vector; ``make(camera)`` gives the function."""

    name: str
    make: Callable[[Camera], Callable[[Any], Array]]


def recorded_case(
    sequence: Recording, flow: FlowMethod, *, limit: int | None = None, stride: int = 1
) -> Case:
    """Frame pairs of a recording: its own flows if it has any, else ``flow`` on its pictures.

    Args:
        limit: at most so many pairs.
        stride: every so many pairs.
    """
    steps = sequence.truth.steps
    chosen = list(range(0, len(steps), stride))[:limit]
    pairs = []
    if sequence.flows:
        pairs = [Pair(sequence.flow(i), steps[i]) for i in chosen]
    else:
        assert sequence.source is not None
        wanted, stop = set(chosen), chosen[-1] + 1 if chosen else 0
        frames = sequence.source.frames(colour=flow.colour)
        for i, (a, b) in enumerate(pairwise(frames)):
            if i >= stop:
                break
            if i in wanted:
                pairs.append(Pair(flow(a.image, b.image), steps[i]))
    if not pairs:
        raise ValueError(f"no frame pair to compare on in {sequence.name}")
    gap = float(np.median(np.diff(sequence.truth.times)))
    return Case(sequence.name, sequence.camera, pairs, 1 / gap)


def scene_case(scenario: str, *, count: int = 40, seed: int = 1) -> Case:
    """Synthetic flows of a scenario S0 to S5."""
    from visionlab.rotation.scenes import make_scene

    scenes = [make_scene(scenario, index, seed=seed) for index in range(count)]
    pairs = [Pair(scene.flow, scene.rotvec) for scene in scenes]
    return Case(f"{scenario} (seed {seed})", scenes[0].camera, pairs, fps=1.0)


def compare(
    cases: Iterable[Case], methods: Sequence[Method], *, seed: int = 0, repeats: int = 1
) -> list[dict[str, Any]]:
    """Table rows, case by case: errors in degrees, failures, milliseconds per pair.

    Args:
        repeats: each pair is timed so often and the fastest counts.
    """
    rows = []
    for case in cases:
        truth = np.array([pair.truth for pair in case.pairs])
        for method in methods:
            log.info("%s: %s", case.name, method.name)
            steps, milliseconds, failed = _measure(method, case, repeats=repeats)
            block = max(1, round(0.5 * case.fps)) if case.fps > 1 else 1
            errors = step_errors(steps, truth)
            rng = np.random.default_rng(seed)
            summary = summarise(method.name, errors, rng=rng, block=block)
            row = table_rows([summary])[0]
            row.pop("1 s drift")
            row["no answer"] = failed
            row["ms median"] = float(np.median(milliseconds))
            row["ms min"] = float(np.min(milliseconds))
            rows.append({"case": case.name, **row})
    return rows


def _measure(method: Method, case: Case, *, repeats: int) -> tuple[Array, Array, int]:
    estimate = method.make(case.camera)
    estimate(case.pairs[0].motion)  # compiled loops and caches are not the rival's fault
    steps, milliseconds, failed = [], [], 0
    for pair in case.pairs:
        fastest = np.inf
        for _ in range(repeats):
            began = time.perf_counter()
            answer = np.asarray(estimate(pair.motion), np.float64)
            fastest = min(fastest, time.perf_counter() - began)
        if not np.isfinite(answer).all():
            answer, failed = np.zeros(3), failed + 1
        steps.append(answer)
        milliseconds.append(1e3 * fastest)
    return np.array(steps), np.array(milliseconds), failed


OURS: dict[str, dict[str, Any]] = {
    "ours irls": {"refine": "irls"},
    "ours joint": {"refine": "joint"},
    "ours vote only": {"refine": "none"},
    "ours fast": {"preset": "fast"},
}


def all_methods() -> list[Method]:
    """Our variants, then every baseline that is installed."""
    rivals = [Method(name.replace("_", " "), _rival(name)) for name in installed()]
    return [Method(name, _ours(options)) for name, options in OURS.items()] + rivals


def _ours(options: Mapping[str, Any]) -> Callable[[Camera], Callable[[Any], Array]]:
    def make(camera: Camera) -> Callable[[Any], Array]:
        arguments = {"grid_step": grid_step(camera.width), **options}
        preset = arguments.pop("preset", None)
        if preset is None:
            estimator = RotationEstimator(camera, **arguments)
        else:
            estimator = RotationEstimator.preset(preset, camera, **arguments)

        def estimate(motion: Any) -> Array:
            if isinstance(motion, Tracks):
                return estimator.from_points(*motion).rotvec
            return estimator(motion).rotvec

        return estimate

    return make


def _rival(name: str) -> Callable[[Camera], Callable[[Any], Array]]:
    """A baseline on the tracks, or on the voting grid of a dense flow (`published`: on its own)."""
    solve = baseline(name)

    def make(camera: Camera) -> Callable[[Any], Array]:
        own = published_points(camera, grid_step(camera.width)).astype(int)

        def estimate(motion: Any) -> Array:
            if isinstance(motion, Tracks) or name != "published":
                points0, points1 = sample(motion)
            else:
                points0 = own.astype(np.float64)
                points1 = points0 + np.asarray(motion)[own[:, 1], own[:, 0]]
            kept = np.isfinite(points1).all(1)
            try:
                return solve(points0[kept], points1[kept], camera)
            except np.linalg.LinAlgError:
                return np.full(3, np.nan)

        return estimate

    return make
