"""Camera rotation from video by Hough voting on SO(3): exact, fast, and with a verdict.

Source: "Robust Frame-to-Frame Camera Rotation Estimation in Crowded Scenes", ICCV 2023
(arXiv 2309.08588), written from the formulas. Reading order: `camera`, `so3`, `lines`, `voting`,
`refinement`, `joint`, `estimator`. Importing this package needs NumPy only.
"""

from visionlab.registry import Registry, lazy_exports

CAMERAS = Registry(
    "camera",
    {
        "camera": "visionlab.rotation.camera:Camera",
        "fov": "visionlab.rotation.camera:from_fov",
        "focal": "visionlab.rotation.camera:from_focal",
        "file": "visionlab.rotation.calibration:read_camera",
    },
)
ESTIMATORS = Registry(
    "estimator",
    {
        "hough": "visionlab.rotation.estimator:RotationEstimator",
        "hough_recipe": "visionlab.rotation.recipe:EstimatorRecipe",
    },
)
FLOWS = Registry(
    "flow",
    {
        "lk": "visionlab.rotation.flow:LucasKanade",
        "dis": "visionlab.rotation.flow:DenseInverseSearch",
        "raft": "visionlab.rotation.flow:Raft",
    },
)

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "Camera": "camera",
        "read_camera": "calibration",
        "RotationEstimator": "estimator",
        "RotationEstimate": "estimate",
        "Status": "estimate",
        "BASELINES": "baselines",
        "baseline": "baselines",
        "make_scene": "scenes",
        "so3": "so3",
        "LucasKanade": "flow",
        "DenseInverseSearch": "flow",
        "Raft": "flow",
        "open_source": "video",
        "Trajectory": "trajectory",
        "read_trajectory": "trajectory_files",
        "evaluate": "evaluation",
        "sequences": "sequences",
    },
)
