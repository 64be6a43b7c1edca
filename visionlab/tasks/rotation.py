"""Camera rotation of a folder of sequences through ``Trainer.predict``, on any number of devices.

Each item is one sequence, so that every device works through whole sequences; what is finished is
not done again when a run is repeated.
"""

import json
import logging
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from torch import nn

from visionlab.rotation import evaluation, pipeline
from visionlab.rotation.camera import Camera
from visionlab.rotation.flow import FlowMethod, LucasKanade, Raft
from visionlab.rotation.recipe import EstimatorRecipe
from visionlab.rotation.sequences.base import Sequence, detect_format, read_sequence
from visionlab.rotation.tracking import RotationTracker
from visionlab.rotation.trajectory import Trajectory
from visionlab.rotation.trajectory_files import atomic, write_csv
from visionlab.rotation.video import FrameSource, open_source
from visionlab.tasks.base import Task

log = logging.getLogger("visionlab")


class Rotation(Task):
    """Estimates the rotation of each sequence and judges it where ground truth is there.

    Results of the sequence NAME lie in ``OUTPUT/NAME``: ``rotation.csv``, ``summary.json`` and
    ``errors.json``, which has no rows without ground truth.

    Args:
        flow: how motion is measured; Lucas-Kanade if None. RAFT moves to the rank's device.
        estimator: a recipe; its defaults if None.
        camera: of every sequence, instead of their own calibrations; scaled to the pictures.
        format: of the sequences (see `visionlab.rotation.sequences`); found out if None.
        formats: of the output, besides CSV.
        batch: pairs that go to the flow together.

    Example:
        >>> Rotation(estimator=EstimatorRecipe(refine="irls")).job
        'predict'
    """

    job: ClassVar[Literal["fit", "predict"]] = "predict"

    def __init__(
        self,
        flow: FlowMethod | None = None,
        *,
        estimator: EstimatorRecipe | None = None,
        camera: Camera | None = None,
        format: str | None = None,
        formats: list[str] | None = None,
        batch: int = 1,
    ) -> None:
        super().__init__(nn.Identity())  # nothing is trained
        self.flow: FlowMethod = flow or LucasKanade()
        self.estimator = estimator or EstimatorRecipe()
        self.camera = camera
        self.format = format
        self.formats = list(dict.fromkeys(["csv", *(formats or [])]))
        self.batch = batch

    def on_predict_start(self) -> None:
        """RAFT works on the device of this rank."""
        if isinstance(self.flow, Raft):
            self.flow.to(str(self.device))

    def on_predict_end(self) -> None:
        """The table of all sequences needs all ranks to be done."""
        self.trainer.strategy.barrier("rotation")

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Any]:
        """Run one sequence; ``batch`` is an item of `visionlab.data.files.PathData`.

        Returns:
            ``name``, ``frames`` and, with ground truth, the rows of `evaluation.evaluate`.
        """
        folder = Path(self.output or "runs/rotation") / batch["name"]
        finished = folder / "errors.json"
        if finished.is_file():
            log.info("%s is done already", batch["name"])
            result: dict[str, Any] = json.loads(finished.read_text())
            return result
        trajectory, truth = self._run(Path(batch["path"]), folder)
        rows: list[dict[str, Any]] = []
        if truth is not None:
            rows = [s.as_row() for s in evaluation.evaluate(trajectory, truth, seed=self.seed)]
        result = {"name": batch["name"], "frames": len(trajectory), "errors": rows}
        with atomic(finished) as file:
            json.dump(result, file, indent=2)
        return result

    def _run(self, path: Path, folder: Path) -> tuple[Trajectory, Trajectory | None]:
        source, camera, sequence = self._open(path)
        tracker = RotationTracker(camera, self.flow, self.estimator(camera), batch=self.batch)
        if source is None:
            assert sequence is not None
            flows = (sequence.flow(i) for i in range(len(sequence.flows)))
            rows = list(tracker.rows_of_flows(flows, sequence.truth.times.tolist()))
            trajectory = pipeline.to_trajectory(rows)
            write_csv(trajectory, folder / "rotation.csv")
            return trajectory, sequence.truth
        result = pipeline.run(
            source,
            tracker,
            folder,
            formats=self.formats,
            settings={"camera": repr(camera), "flow": repr(self.flow), **self.estimator.as_dict()},
            # a summary without errors.json: killed in between, so the rows are made once more
            overwrite=(folder / "summary.json").exists(),
        )
        return result.trajectory, sequence.truth if sequence is not None else None

    def _open(self, path: Path) -> tuple[FrameSource | None, Camera, Sequence | None]:
        """Pictures, camera and, where the layout is a known one, the ground truth."""
        sequence = None
        if self.format is not None or _is_sequence(path):
            sequence = read_sequence(path, format=self.format, camera=self._fitting_to(path))
            source, camera = sequence.source, sequence.camera
            return source, camera, sequence
        source = open_source(path)
        if self.camera is None:
            raise ValueError(f"{path} has no calibration; give task.camera, e.g. a field of view")
        return source, self.camera.scaled(*source.size), None

    def _fitting_to(self, path: Path) -> Camera | None:
        if self.camera is None or not path.is_file():
            return self.camera
        return self.camera.scaled(*open_source(path).size)


class RotationErrors:
    """Table of all sequences of a run: error of the estimate, of zero and of least squares."""

    title = "Camera rotation, error per frame in degrees"

    def run(self, task: Any, data: Any, output: Path) -> list[dict[str, Any]]:
        """Rows from the results that the ranks left in the run folder."""
        rows = []
        for file in sorted(Path(output).glob("*/errors.json")):
            result = json.loads(file.read_text())
            for error in result["errors"]:
                chosen = {k: error[k] for k in ("method", "frames", "mean", "median", "p90", "max")}
                rows.append({"sequence": result["name"], **chosen, "failures": error["failures"]})
        return rows + _means(rows)


def _means(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean over sequences, each with the same weight."""
    found = []
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method]
        if len(own) > 1:
            means = {k: float(np.mean([r[k] for r in own])) for k in ("mean", "median", "p90")}
            found.append(
                {
                    "sequence": f"mean of {len(own)}",
                    "method": method,
                    "frames": sum(r["frames"] for r in own),
                    **means,
                    "max": max(r["max"] for r in own),
                    "failures": sum(r["failures"] for r in own),
                }
            )
    return found


def _is_sequence(path: Path) -> bool:
    if path.is_file():
        return path.with_name(f"{path.stem}_gt.csv").is_file()
    try:
        detect_format(path)
    except ValueError:
        return False
    return True
