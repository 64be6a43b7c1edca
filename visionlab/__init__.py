"""visionlab: four ideas for vision models, each a component that stands alone.

Sub-packages load on first use::
    import visionlab
    mask = visionlab.masking.create_mask("green", grid=(14, 14))
"""

from visionlab.registry import lazy_exports

__version__ = "0.1.0"

_ROOMS = [
    "backbones", "data", "figures", "heads", "masking", "moe", "plots", "proximal", "rotation",
    "tasks",
]  # fmt: skip

__getattr__, __dir__ = lazy_exports(
    __name__,
    {"load": "checkpoint", "config": "config", "checkpoint": "checkpoint"} | {r: r for r in _ROOMS},
)
