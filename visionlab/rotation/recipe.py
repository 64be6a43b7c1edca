"""The choice of an estimator before its camera is known, as command lines and configs make it."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from visionlab.rotation.camera import Camera
from visionlab.rotation.estimator import RotationEstimator
from visionlab.rotation.flow import grid_step


@dataclass(frozen=True)
class EstimatorRecipe:
    """Options of `RotationEstimator` in degrees; grids follow the width of the picture.

    Args:
        preset: a preset of `RotationEstimator`, single options of which the others overrule.
        refine: ``irls``, ``joint`` or ``none``; the estimator's own default if None.
        max_angle_deg: range of the vote per axis.
        bin_size_deg: cell of the vote.
        backend: of the vote.
        num_threads: over the frames of a batch.

    Example:
        >>> EstimatorRecipe(max_angle_deg=6.0)(Camera.from_fov(60, 480, 270)).voting_points.shape
        (576, 2)
    """

    preset: str | None = None
    refine: str | None = None
    max_angle_deg: float | None = None
    bin_size_deg: float | None = None
    backend: str = "auto"
    num_threads: int = 1

    def __call__(self, camera: Camera) -> RotationEstimator:
        """The estimator of a camera: 32 columns vote, as `LucasKanade` tracks, and 96 refine."""
        step = grid_step(camera.width)
        options: dict[str, Any] = {
            "grid_step": step,
            "backend": self.backend,
            "num_threads": self.num_threads,
        }
        if self.refine is not None:
            options["refine"] = self.refine
        if self.max_angle_deg is not None:
            options["max_angle"] = float(np.radians(self.max_angle_deg))
        if self.bin_size_deg is not None:
            options["bin_size"] = float(np.radians(self.bin_size_deg))
        if self.preset is None:
            return RotationEstimator(camera, refine_step=max(step // 3, 1), **options)
        if self.preset == "fast":
            options["refine_step"] = step
        return RotationEstimator.preset(self.preset, camera, **options)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for summaries."""
        return asdict(self)
