"""Video with ground truth: readers of public data sets, and a virtual camera with exact rotation.

Each format has the one reader ``(path, *, camera=None) -> Sequence``.
"""

from visionlab.registry import Registry, lazy_exports

SEQUENCES = Registry(
    "sequence format",
    {
        "buss": "visionlab.rotation.sequences.buss:read_buss",
        "tum": "visionlab.rotation.sequences.tum:read_tum",
        "euroc": "visionlab.rotation.sequences.euroc:read_euroc",
        "tumvi": "visionlab.rotation.sequences.euroc:read_tumvi",
        "kitti": "visionlab.rotation.sequences.kitti:read_kitti",
        "csv": "visionlab.rotation.sequences.table:read_csv_sequence",
    },
)

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "Sequence": "base",
        "detect_format": "base",
        "read_sequence": "base",
        "VirtualCamera": "virtual",
        "smooth_rotations": "virtual",
    },
)
