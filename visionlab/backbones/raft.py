"""RAFT optical flow (Teed, Deng, ECCV 2020): torchvision's networks, weights from a local file."""

from pathlib import Path

from torch import nn
from torchvision.models.optical_flow import raft_large as _large
from torchvision.models.optical_flow import raft_small as _small

from visionlab import checkpoint


def raft_small(weights: str | Path | None = None) -> nn.Module:
    """RAFT with 1.0 M parameters.

    Args:
        weights: state dict in torchvision's layout, e.g. ``raft_small_C_T_V2-01064c6d.pth``; random
            weights without it. Nothing is ever downloaded.
    """
    return _loaded(_small(weights=None, progress=False), weights)


def raft_large(weights: str | Path | None = None) -> nn.Module:
    """RAFT with 5.3 M parameters; ``weights`` as in `raft_small`."""
    return _loaded(_large(weights=None, progress=False), weights)


def _loaded(net: nn.Module, weights: str | Path | None) -> nn.Module:
    if weights is None:
        return net
    path = Path(weights)
    if not path.is_file():
        raise FileNotFoundError(f"no such weights file: {path}")
    state = checkpoint.read(path)
    checkpoint.load_strictly(net, state, source=str(path))
    return net
