"""What the command line asks for, as objects: cameras, flows, estimators; then the work itself."""

import argparse
import json
import logging
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from visionlab.rotation import FLOWS, evaluation, pipeline
from visionlab.rotation.camera import Camera
from visionlab.rotation.flow import FlowMethod
from visionlab.rotation.recipe import EstimatorRecipe
from visionlab.rotation.tracking import Masks, RotationTracker
from visionlab.rotation.trajectory import Trajectory
from visionlab.rotation.trajectory_files import atomic, read_trajectory
from visionlab.rotation.video import open_source

log = logging.getLogger(__name__)


def run(options: argparse.Namespace, *, progress: TextIO | None) -> pipeline.RunResult:
    """Estimate a video's rotation and write what was asked for."""
    set_threads(options.threads)
    if options.invert_mask and options.mask is None:
        raise ValueError("--invert-mask turns a mask round, but no --mask was given")
    output = options.output or Path(f"{Path(options.source).stem or 'stream'}_rotation")
    if output.resolve() == Path(options.source).resolve():
        raise ValueError(
            f"the results would lie among the pictures of {output}; name another --output"
        )
    source = open_source(options.source, fps=options.fps, stop=options.stop)
    full = _build_camera(options, source.size)
    camera = full
    if options.width is not None:
        if not 16 <= options.width <= full.width:
            raise ValueError(f"--width must lie between 16 and {full.width}, got {options.width}")
        camera = full.scaled(options.width, round(full.height * options.width / full.width))
    masks = None
    if options.mask is not None:
        masks = Masks(options.mask, size=source.size, invert=options.invert_mask)
    tracker = RotationTracker(
        camera,
        _build_flow(options),
        _estimator_recipe(options)(camera),
        masks=masks,
        width=options.width,
        batch=options.batch,
        use_prior=options.prior,
    )
    if options.stabilise is not None and options.stabilise.exists() and not options.overwrite:
        raise FileExistsError(f"{options.stabilise} exists already; give --overwrite")
    result = pipeline.run(
        source,
        tracker,
        output,
        start=options.start,
        formats=options.formats,
        settings=settings(options, camera),
        overwrite=options.overwrite,
        progress=progress,
    )
    truth = read_trajectory(options.truth) if options.truth else None
    if options.plots:
        result.files.extend(_write_plots(result.trajectory, truth, tracker, source, output))
    if truth is not None:
        print(_table(evaluation.evaluate(result.trajectory, truth)))
    if options.stabilise is not None:
        result.files.append(_stabilise(options, source, full, result.trajectory))
    return result


def evaluate(options: argparse.Namespace) -> str:
    """The table of ``eval``; also its JSON and histogram."""
    path = options.estimate
    estimate = read_trajectory(path / "rotation.csv" if path.is_dir() else path)
    truth = read_trajectory(options.truth)
    summaries = evaluation.evaluate(estimate, truth, by=options.by, seed=options.seed)
    if options.json is not None:
        _write_json(options.json, [s.as_row() for s in summaries])
    if options.plot is not None:
        from visionlab.plots import rotation as plots
        from visionlab.plots.saving import save_figure

        errors = evaluation.errors_by_method(estimate, truth, by=options.by)
        save_figure(plots.plot_errors(errors), options.plot, errors)
    text = _table(summaries)
    if evaluation.least_squares_steps(estimate) is None:
        text += (
            "\nleast squares: not beside this estimate, which has no columns ls_wx, ls_wy, ls_wz "
            "(`run` writes them)"
        )
    return text


def compare(options: argparse.Namespace) -> str:
    """The table of ``compare``."""
    from visionlab.rotation import comparison
    from visionlab.rotation.sequences import read_sequence

    if not options.sequences and not options.scenes:
        raise ValueError("nothing to compare on: name recordings, or --scenes S0 S1 ...")
    set_threads(options.threads or 1)
    methods = [
        m for m in comparison.all_methods() if any(fnmatchcase(m.name, p) for p in options.methods)
    ]
    if not methods:
        names = ", ".join(m.name for m in comparison.all_methods())
        raise ValueError(f"no method matches {' '.join(options.methods)}; known: {names}")
    cases = []
    for path in options.sequences:
        camera = None
        if options.focal or options.fov or options.camera:
            camera = _build_camera(options, _picture_size(path))
        sequence = read_sequence(path, format=options.format, camera=camera)
        flow = _build_flow(options)
        cases.append(
            comparison.recorded_case(sequence, flow, limit=options.limit, stride=options.stride)
        )
    for scenario in options.scenes:
        cases.append(comparison.scene_case(scenario, count=options.count, seed=options.seed))
    rows = comparison.compare(cases, methods, repeats=options.repeats)
    if options.json is not None:
        _write_json(options.json, rows)
    return evaluation.format_table(rows)


def _build_camera(options: argparse.Namespace, size: tuple[int, int]) -> Camera:
    """Camera of ``--focal``, ``--fov`` or ``--camera`` for frames of a size.

    Raises:
        ValueError: none of the three, or a calibration of another size without ``--fit-camera``.
    """
    if options.camera is not None:
        camera = Camera.from_file(options.camera)
        if (camera.width, camera.height) != size:
            if not options.fit_camera:
                raise ValueError(
                    f"{options.camera} is for {camera.width}x{camera.height} px, the frames are "
                    f"{size[0]}x{size[1]}; if they were merely resized, give --fit-camera"
                )
            camera = camera.scaled(*size)
    elif options.focal is not None:
        camera = Camera.from_focal(options.focal, *size)
    elif options.fov is not None:
        camera = Camera.from_fov(options.fov, *size)
    else:
        raise ValueError(
            "the focal length is not known: give --focal PX, --fov DEGREES (horizontal) or "
            "--camera FILE"
        )
    if options.centre is not None:
        camera = replace(camera, cx=options.centre[0], cy=options.centre[1])
    return camera


def _build_flow(options: argparse.Namespace) -> FlowMethod:
    """The flow method of ``--flow`` and its options."""
    arguments: dict[str, Any] = {}
    if options.flow == "raft":
        arguments = {"weights": options.weights, "network": options.network}
        arguments["device"] = options.device
    elif options.preset is not None:
        if options.flow != "dis":
            raise ValueError(f"--preset belongs to --flow dis, not to --flow {options.flow}")
        arguments = {"preset": options.preset}
    method: FlowMethod = FLOWS.get(options.flow)(**arguments)
    return method


def _estimator_recipe(options: argparse.Namespace) -> EstimatorRecipe:
    """The estimator of ``--estimator``, ``--refine``, ``--max-angle`` and ``--bin-size``."""
    backend = "auto"
    if options.device.partition(":")[0] not in ("cpu", "cuda"):
        raise ValueError(f"no device '{options.device}'; use cpu, cuda or cuda:1")
    if options.device.startswith("cuda"):
        _require_gpu(options.device)
        backend = "cuda"
    return EstimatorRecipe(
        preset=options.estimator,
        refine=options.refine,
        max_angle_deg=options.max_angle,
        bin_size_deg=options.bin_size,
        backend=backend,
        num_threads=max(options.threads, 1),
    )


def _require_gpu(device: str) -> None:
    """Refuse a CUDA device that is not there.

    Raises:
        ValueError: torch sees no CUDA GPU.
    """
    import torch

    if not torch.cuda.is_available():
        raise ValueError(f"--device {device} was asked for, but torch sees no CUDA GPU; use cpu")


def settings(options: argparse.Namespace, camera: Camera) -> dict[str, Any]:
    """What the numbers of a run depend on, in plain values."""
    names = (
        "flow", "preset", "weights", "network", "device", "refine", "estimator", "max_angle",
        "bin_size", "mask", "invert_mask", "stop", "fps", "width", "prior",
    )  # fmt: skip
    values = {name: getattr(options, name) for name in names}
    plain = {k: str(v) if isinstance(v, Path) else v for k, v in values.items()}
    return {"camera": repr(camera), **plain}


def set_threads(count: int) -> None:
    """Threads of OpenCV; 0 leaves its own choice."""
    if count < 0:
        raise ValueError(f"--threads must not be negative, got {count}")
    import cv2

    if count:
        cv2.setNumThreads(count)


def _write_plots(
    trajectory: Trajectory,
    truth: Trajectory | None,
    tracker: RotationTracker,
    source: Any,
    output: Path,
) -> list[Path]:
    """Rates, cumulative angles, votes of the largest turn, and errors where truth is given."""
    from visionlab.plots import rotation as plots
    from visionlab.plots.saving import save_figure

    shown = {"estimate": trajectory}
    if truth is not None:
        shown["ground truth"] = evaluation.align(trajectory, truth)
    rates, angles = np.degrees(trajectory.rates), np.degrees(trajectory.angles)
    pictures: dict[str, tuple[Any, dict[str, Any]]] = {
        "rates": (plots.plot_rates(shown), {"times": trajectory.times, "rates_deg_s": rates}),
        "angles": (plots.plot_angles(shown), {"times": trajectory.times, "angles_deg": angles}),
    }
    if not source.live:
        pictures["votes"] = (_votes(trajectory, tracker, source), {})
    if truth is not None:
        errors = evaluation.errors_by_method(trajectory, truth)
        pictures["errors"] = (plots.plot_errors(errors), dict(errors))
    for name, (figure, data) in pictures.items():
        save_figure(figure, output / f"{name}.png", data)
    return [output / f"{name}.png" for name in pictures]


def _votes(trajectory: Trajectory, tracker: RotationTracker, source: Any) -> Any:
    from visionlab.plots import rotation as plots
    from visionlab.rotation.continuity import sample
    from visionlab.rotation.lines import Grid, lines_from_plane
    from visionlab.rotation.voting import vote

    size = np.linalg.norm(np.nan_to_num(trajectory.steps), axis=1)
    first = int(trajectory.frames[int(np.argmax(size))])
    motion = tracker.motion_from(source, first)
    tracks = sample(motion)
    camera = tracker.camera
    grid = Grid.for_range(1e-3, max(0.07, 1.2 * float(size.max())))
    plane = [camera.normalise(points) for points in tracks]
    lines = lines_from_plane(*plane, grid=grid)
    winner = vote(lines, bins=grid.bins)
    title = f"frame {first} to {first + 1} of {Path(source.name).name}"
    cell = int(winner.cell)
    return plots.plot_votes(lines, bins=grid.bins, bin_size=grid.bin_size, cell=cell, title=title)


def _stabilise(
    options: argparse.Namespace, source: Any, camera: Camera, trajectory: Trajectory
) -> Path:
    from visionlab.rotation import stabilise

    plan = stabilise.plan(trajectory, camera, seconds=options.smooth)
    log.info("steady video: zoom %.2f, %.0f %% of the correction", plan.zoom, 100 * plan.strength)
    start = int(trajectory.frames[0])
    frames = source.frames(start=start, colour=True)
    fps = 1 / float(np.median(np.diff(trajectory.times)))
    return stabilise.write_stabilised(frames, plan, camera, options.stabilise, fps=fps)


def _picture_size(path: Path) -> tuple[int, int]:
    if path.is_file():
        return open_source(path).size
    for folder in (path, *sorted(f for f in path.rglob("*") if f.is_dir())):
        try:
            return open_source(folder).size
        except ValueError:
            continue
    raise ValueError(f"no picture in {path}")


def _table(summaries: list[evaluation.ErrorSummary]) -> str:
    return evaluation.format_table(evaluation.table_rows(summaries))


def _write_json(path: Path, value: Any) -> None:
    with atomic(path) as file:
        json.dump(value, file, indent=2)
        file.write("\n")
