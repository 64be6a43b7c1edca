"""Where pixels go from one frame to the next: `lk` on the voting grid (default), `dis`, `raft`.

A method is called with two frames and returns `Tracks` (sparse) or a dense flow (H, W, 2) in px.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from visionlab.registry import suggest

Image = NDArray[np.uint8]
Array = NDArray[np.float64]

DIS_PRESETS = {"ultrafast": 0, "fast": 1, "medium": 2}
_RAFT_STRIDE, _RAFT_MINIMUM = 8, 128


class Tracks(NamedTuple):
    """Sparse correspondences; a row of ``points1`` is NaN where the point was lost."""

    points0: Array
    """(N, 2) px in the first frame."""
    points1: Array
    """(N, 2) px in the second frame."""


class FlowMethod(Protocol):
    """What `LucasKanade`, `DenseInverseSearch` and `Raft` have in common."""

    colour: ClassVar[bool]
    """Whether it wants BGR (H, W, 3) rather than grey frames (H, W)."""
    dense: ClassVar[bool]

    def __call__(self, previous: Image, current: Image) -> "Tracks | Any":
        """Motion from ``previous`` to ``current``."""
        ...

    def batch(
        self, previous: Sequence[Image], current: Sequence[Image]
    ) -> "Sequence[Tracks] | Any":
        """Motion of several pairs: a list of `Tracks`, or dense flows (B, H, W, 2)."""
        ...


def grid_points(width: int, height: int, step: int) -> Array:
    """(N, 2) px: every ``step``-th pixel, half a step from the border, row by row.

    Example:
        >>> grid_points(30, 15, 15).tolist()
        [[7.0, 7.0], [22.0, 7.0]]
    """
    ys, xs = np.mgrid[step // 2 : height : step, step // 2 : width : step]
    return np.stack([xs.ravel(), ys.ravel()], 1).astype(np.float64)


def grid_step(width: int, *, columns: int = 32) -> int:
    """Grid step that gives about ``columns`` points across the image: 15 px at 480."""
    return max(round(width / columns), 4)


class LucasKanade:
    """Pyramidal Lucas-Kanade on the voting grid with a forward-backward check (Bouguet 2000).

    As accurate as a dense flow for the rotation and cheaper: 576 points at 480x270.

    Args:
        step: grid step in px; without it about 32 points across the image (15 px at 480).
        window: side of the matched patch in px.
        levels: pyramid levels above the image; each doubles the reach. Without it, as many as let
            a patch cover a quarter of the image.
        max_error: a point is lost if tracking it forth and back misses by more than this many px.

    Example:
        >>> image = np.random.default_rng(0).integers(0, 255, (60, 80)).astype(np.uint8)
        >>> tracks = LucasKanade(step=15)(image, image)
        >>> bool(np.abs(tracks.points1 - tracks.points0).max() < 1e-3)
        True
    """

    colour: ClassVar[bool] = False
    dense: ClassVar[bool] = False

    def __init__(
        self,
        step: int | None = None,
        *,
        window: int = 21,
        levels: int | None = None,
        max_error: float = 0.5,
    ) -> None:
        if step is not None and step < 1:
            raise ValueError(f"step must be at least 1 px, got {step}")
        if window < 3:
            raise ValueError(f"window must be at least 3 px, got {window}")
        if max_error <= 0:
            raise ValueError(f"max_error must be positive, got {max_error}")
        self.step = step
        self.window = window
        self.levels = levels
        self.max_error = max_error

    def __call__(self, previous: Image, current: Image) -> Tracks:
        """Tracks of the grid points; frames are grey (H, W) uint8."""
        import cv2

        _check_pair(previous, current, channels=1)
        height, width = previous.shape
        points = grid_points(width, height, self.step or grid_step(width))
        start = points[:, None].astype(np.float32)
        options: dict[str, Any] = {
            "winSize": (self.window, self.window),
            "maxLevel": self._levels(width, height),
            "criteria": (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 30, 0.01),
        }
        track: Any = cv2.calcOpticalFlowPyrLK  # its stub does not know None for the result array
        forth, found, _ = track(previous, current, start, None, **options)
        back, returned, _ = track(current, previous, forth, None, **options)
        miss = np.linalg.norm((back - start)[:, 0], axis=1)
        kept = (found[:, 0] == 1) & (returned[:, 0] == 1) & (miss <= self.max_error)
        points1 = forth[:, 0].astype(np.float64)
        points1[~kept] = np.nan
        return Tracks(points, points1)

    def __repr__(self) -> str:
        names = ("step", "window", "levels", "max_error")
        return f"LucasKanade({', '.join(f'{n}={getattr(self, n)!r}' for n in names)})"

    def batch(self, previous: Sequence[Image], current: Sequence[Image]) -> list[Tracks]:
        """Tracks of each pair."""
        return [self(a, b) for a, b in zip(previous, current, strict=True)]

    def _levels(self, width: int, height: int) -> int:
        if self.levels is not None:
            return self.levels
        return max(int(np.log2(min(width, height) / 4 / (self.window / 2))), 0) + 1


class DenseInverseSearch:
    """DIS optical flow (Kroeger et al., ECCV 2016) by OpenCV.

    Args:
        preset: ``ultrafast`` (1.5 ms at 480x270, rotation errors about 4 times those of
            ``medium``), ``fast`` or ``medium`` (13 ms).
    """

    colour: ClassVar[bool] = False
    dense: ClassVar[bool] = True

    def __init__(self, preset: str = "medium") -> None:
        if preset not in DIS_PRESETS:
            raise ValueError(f"no DIS preset '{preset}'. {suggest(preset, DIS_PRESETS)}")
        self.preset = preset
        self._search: Any = None

    def __call__(self, previous: Image, current: Image) -> NDArray[np.float32]:
        """Flow (H, W, 2) in px; frames are grey (H, W) uint8."""
        import cv2

        _check_pair(previous, current, channels=1)
        if self._search is None:
            self._search = cv2.DISOpticalFlow.create(DIS_PRESETS[self.preset])
        whole = (np.ascontiguousarray(image) for image in (previous, current))  # or it asserts
        return np.asarray(self._search.calc(*whole, None))

    def __repr__(self) -> str:
        return f"DenseInverseSearch({self.preset!r})"

    def batch(self, previous: Sequence[Image], current: Sequence[Image]) -> NDArray[np.float32]:
        """Flows (B, H, W, 2)."""
        return np.stack([self(a, b) for a, b in zip(previous, current, strict=True)])


class Raft:
    """RAFT (Teed and Deng, ECCV 2020) as torchvision builds it, weights from a local file.

    Args:
        weights: state dict of torchvision's network, e.g. ``raft_small_C_T_V2-01064c6d.pth``.
        network: name in the backbone registry, ``raft_small`` or ``raft_large``.
        device: torch device; CUDA flows stay on the device.
        updates: refinement steps.

    Raises:
        ValueError: no weights given, CUDA asked for and absent.
        FileNotFoundError: no such weights file.
    """

    colour: ClassVar[bool] = True
    dense: ClassVar[bool] = True

    def __init__(
        self,
        weights: str | Path | None = None,
        *,
        network: str = "raft_small",
        device: str = "cpu",
        updates: int = 12,
    ) -> None:
        if weights is None:
            raise ValueError(
                "flow 'raft' needs weights: give the local file of torchvision's state dict "
                "(raft_small_C_T_V2-01064c6d.pth or raft_large_C_T_SKHT_V2-ff5fadd5.pth)"
            )
        self.weights = Path(weights)
        if not self.weights.is_file():
            raise FileNotFoundError(f"no such weights file for flow 'raft': {self.weights}")
        self.network = network
        self.device = device
        self.updates = updates
        self._net: Any = None

    def __call__(self, previous: Image, current: Image) -> Any:
        """Flow (H, W, 2) in px; frames are BGR (H, W, 3) uint8."""
        return self.batch([previous], [current])[0]

    def batch(self, previous: Sequence[Image], current: Sequence[Image]) -> Any:
        """Flows (B, H, W, 2): NumPy on the CPU, a torch tensor on CUDA."""
        import torch

        for a, b in zip(previous, current, strict=True):
            _check_pair(a, b, channels=3)
        net = self._network()
        height, width = previous[0].shape[:2]
        with torch.inference_mode():
            first, second = self._prepare(previous), self._prepare(current)
            flow = net(first, second, num_flow_updates=self.updates)[-1]
        flow = flow[:, :, :height, :width].permute(0, 2, 3, 1).contiguous()
        return flow if flow.is_cuda else flow.numpy()

    def __repr__(self) -> str:
        return f"Raft({self.weights.name!r}, network={self.network!r}, updates={self.updates})"

    def to(self, device: str) -> None:
        """Work on another device from now on."""
        if device != self.device:
            self.device, self._net = device, None

    def _network(self) -> Any:
        if self._net is None:
            import torch

            from visionlab.backbones import create_backbone

            if self.device.startswith("cuda") and not torch.cuda.is_available():
                raise ValueError(
                    f"device '{self.device}' was asked for, but torch sees no CUDA GPU"
                )
            net = create_backbone(self.network, weights=self.weights)
            self._net = net.eval().to(self.device)
        return self._net

    def _prepare(self, images: Sequence[Image]) -> Any:
        """RGB in [-1, 1], padded at the right and below to what the network can take."""
        import torch

        batch = torch.from_numpy(np.stack([image[..., ::-1] for image in images]))
        batch = batch.to(self.device).permute(0, 3, 1, 2).float() / 127.5 - 1
        sides = [max(-(-n // _RAFT_STRIDE) * _RAFT_STRIDE, _RAFT_MINIMUM) for n in batch.shape[2:]]
        pad = (0, sides[1] - batch.shape[3], 0, sides[0] - batch.shape[2])
        return torch.nn.functional.pad(batch, pad, mode="replicate")


def _check_pair(previous: Image, current: Image, *, channels: int) -> None:
    """Refuse frames that are not two uint8 pictures of one size."""
    for image in (previous, current):
        shape, dtype = getattr(image, "shape", None), getattr(image, "dtype", None)
        right = len(shape or ()) == 2 if channels == 1 else len(shape or ()) == 3
        if dtype != np.uint8 or not right:
            wanted = "grey (H, W)" if channels == 1 else "BGR (H, W, 3)"
            raise ValueError(f"expected {wanted} uint8 frames, got shape {shape}, dtype {dtype}")
    if previous.shape != current.shape:
        raise ValueError(
            f"two frames of one size are needed, got {previous.shape}, {current.shape}"
        )
