"""Frame after frame: motion, rotation, verdict. One row of plain values for each frame.

A row depends on the frames and on the row before it alone, so that a run which was killed goes on
where it stopped and ends with the same rows.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, pairwise
from math import nan
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from visionlab.rotation.camera import Camera
from visionlab.rotation.continuity import is_cut, is_duplicate, sample
from visionlab.rotation.estimate import RotationEstimate, Status
from visionlab.rotation.flow import FlowMethod, Tracks
from visionlab.rotation.inputs import gather_points
from visionlab.rotation.trajectory import CUT, DUPLICATE, START, advance
from visionlab.rotation.video import (
    IMAGE_SUFFIXES,
    Frame,
    FrameSource,
    natural_order,
    read_image,
)

Row = dict[str, Any]
Mask = NDArray[np.bool_]

_IDENTITY = np.zeros(3)
_NONE = np.full(3, nan)
_ENDLESS = 1e9  # px


class Estimator(Protocol):
    """What `RotationEstimator` and any replacement must offer."""

    def __call__(self, flow: Any, mask: Any = None, *, prior: Any = None) -> RotationEstimate:
        """Rotation of a dense flow (H, W, 2)."""
        ...

    def from_points(self, points0: Any, points1: Any, *, prior: Any = None) -> RotationEstimate:
        """Rotation of tracks; a NaN row is a lost point."""
        ...

    def batch(self, flows: Any, masks: Any = None) -> list[RotationEstimate]:
        """Rotations of dense flows (B, H, W, 2)."""
        ...


class Masks:
    """Which pixels take part: one picture for all frames, or a folder with one for each.

    White is used, black is ignored, as everywhere in OpenCV; ``invert`` swaps that.

    Raises:
        FileNotFoundError: no such picture or folder.
        ValueError: a picture of other size than the frames, fewer pictures than frames.
    """

    def __init__(self, path: str | Path, *, size: tuple[int, int], invert: bool = False) -> None:
        root = Path(path)
        if not root.exists():
            raise FileNotFoundError(f"no such mask: {root}")
        found = sorted(root.iterdir(), key=natural_order) if root.is_dir() else [root]
        self.files = [f for f in found if f.suffix.lower() in IMAGE_SUFFIXES]
        if not self.files:
            raise ValueError(f"no mask picture in {root}")
        self.single = not root.is_dir()
        self.size = size
        self.invert = invert
        self._first = self._read(self.files[0])
        if self.single and not self._first.any():
            raise ValueError(f"mask {root} lets no pixel take part: white is used, black ignored")

    def __call__(self, index: int) -> Mask:
        """(H, W) mask of a frame."""
        if self.single:
            return self._first
        if index >= len(self.files):
            raise ValueError(f"{len(self.files)} masks, but frame {index} needs one too")
        return self._read(self.files[index])

    def _read(self, file: Path) -> Mask:
        picture = read_image(file)
        if picture.shape[1::-1] != self.size:
            raise ValueError(
                f"mask {file} is {picture.shape[1]}x{picture.shape[0]}, the frames are "
                f"{self.size[0]}x{self.size[1]}; make them equal"
            )
        return (picture > 127) != self.invert


class RotationTracker:
    """Turns frames into rows.

    Args:
        camera: of the frames as they are used, that is after ``width``.
        flow: how motion is measured.
        estimator: how motion becomes a rotation.
        masks: which pixels take part.
        width: frames are reduced to this width first.
        batch: pairs that go to the flow and the estimator together (dense flows; for GPUs).
        use_prior: hand the estimator the last frame's answer.

    Example:
        >>> from visionlab.rotation import LucasKanade, RotationEstimator
        >>> from visionlab.rotation.sequences import VirtualCamera
        >>> rng = np.random.default_rng(0)
        >>> photo = np.kron(rng.integers(0, 255, (60, 80)), np.ones((4, 4))).astype(np.uint8)
        >>> clip = VirtualCamera(photo, size=(160, 90), focal=200.0, frames=3, peak_deg=1.0)
        >>> tracker = RotationTracker(clip.camera, LucasKanade(), RotationEstimator(clip.camera))
        >>> [row["status"] for row in tracker.rows(clip.frames())]
        ['start', 'ok', 'ok']
    """

    def __init__(
        self,
        camera: Camera,
        flow: FlowMethod,
        estimator: Estimator,
        *,
        masks: Masks | None = None,
        width: int | None = None,
        batch: int = 1,
        use_prior: bool = False,
    ) -> None:
        if batch < 1:
            raise ValueError(f"batch must be at least 1, got {batch}")
        if batch > 1 and use_prior:
            raise ValueError("a prior needs the answer before: use batch 1, or no prior")
        self.camera = camera
        self.flow = flow
        self.estimator = estimator
        self.masks = masks
        self.width = width
        self.batch = batch
        self.use_prior = use_prior

    def rows(self, frames: Iterable[Frame], *, before: Row | None = None) -> Iterator[Row]:
        """Rows of the frames.

        Args:
            before: the row of the first of the frames, where a run goes on; it is not repeated.
        """
        stream = iter(frames)
        window: deque[Frame] = deque(islice(stream, 1))
        if not window:
            return
        window[0] = self._reduced(window[0])
        last = before or _row(window[0].index, window[0].time, None, _NONE, START, segment=0)
        if before is None:
            yield last
        while chunk := [self._reduced(frame) for frame in islice(stream, self.batch)]:
            window.extend(chunk)
            for row in self._steps(list(window), last):
                yield row
                last = row
            window = deque([window[-1]])

    def rows_of_flows(self, flows: Iterable[Any], times: Sequence[float]) -> Iterator[Row]:
        """Rows of stored dense flows, flow k leading from frame k to frame k+1."""
        row = _row(0, times[0], None, _NONE, START, segment=0)
        yield row
        for index, flow in enumerate(flows):
            mask = self._mask(index) if self.masks else None
            estimate = self._estimate(flow, mask, _prior(row) if self.use_prior else None)
            simple = least_squares_step(flow, self.camera)
            row = _estimate_row(index + 1, times[index + 1], row, estimate, simple)
            yield row

    def motion_from(self, source: FrameSource, index: int) -> Any:
        """Motion from frame ``index`` of a source to the next, as the rows were made of."""
        frames = islice(source.frames(start=index, colour=self.flow.colour), 2)
        first, second = (self._reduced(frame).image for frame in frames)
        return self.flow(first, second)

    def _steps(self, frames: list[Frame], row: Row) -> Iterator[Row]:
        pairs = list(pairwise(frames))
        moved = [not is_duplicate(_grey(a), _grey(b)) for a, b in pairs]
        active = [pair for pair, flag in zip(pairs, moved) if flag]
        motions = self._motions(active)
        cuts = [is_cut(_grey(a), _grey(b), m) for (a, b), m in zip(active, motions)]
        estimates = iter(self._estimates(active, motions, cuts, row))
        verdicts = iter(zip(motions, cuts))
        for (_, frame), flag in zip(pairs, moved):
            if not flag:
                row = _row(
                    frame.index, frame.time, row, _IDENTITY, DUPLICATE, segment=row["segment"]
                )
            else:
                motion, cut = next(verdicts)
                if cut:
                    row = _row(frame.index, frame.time, row, _NONE, CUT, segment=row["segment"] + 1)
                else:
                    estimate = next(estimates)
                    simple = least_squares_step(motion, self.camera)
                    row = _estimate_row(frame.index, frame.time, row, estimate, simple)
            yield row

    def _motions(self, pairs: list[tuple[Frame, Frame]]) -> Any:
        if len(pairs) < 2:  # a batch of one would be a copy
            return [self.flow(a.image, b.image) for a, b in pairs]
        return self.flow.batch([a.image for a, _ in pairs], [b.image for _, b in pairs])

    def _estimates(
        self, pairs: list[tuple[Frame, Frame]], motions: Any, cuts: list[bool], row: Row
    ) -> Iterable[RotationEstimate]:
        kept = [i for i, cut in enumerate(cuts) if not cut]
        masks = [self._mask(pairs[i][0].index) for i in kept] if self.masks else None
        if self.flow.dense and len(kept) > 1 and all(m.any() for m in masks or ()):
            return self.estimator.batch(motions[kept], np.stack(masks) if masks else None)
        prior = _prior(row) if self.use_prior else None
        each: list[Mask | None] = [*masks] if masks else [None] * len(kept)
        return [self._estimate(motions[i], mask, prior) for i, mask in zip(kept, each)]

    def _estimate(self, motion: Any, mask: Mask | None, prior: Any) -> RotationEstimate:
        if mask is not None and not mask.any():
            return _lost("the mask leaves no pixel")
        if not isinstance(motion, Tracks):
            return self.estimator(motion, mask, prior=prior)
        points0, points1 = motion
        if mask is not None:
            x, y = np.round(points0).astype(int).T
            points1 = np.where(mask[y, x][:, None], points1, nan)
        if not np.isfinite(points1).all(1).any():
            return _lost("no track is left")
        return self.estimator.from_points(points0, points1, prior=prior)

    def _mask(self, index: int) -> Mask:
        assert self.masks is not None
        mask = self.masks(index)
        if self.width is None:
            return mask
        import cv2

        size = (self.camera.width, self.camera.height)
        small = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        return np.asarray(small, bool)

    def _reduced(self, frame: Frame) -> Frame:
        if self.width is None:
            return frame
        import cv2

        size = (self.camera.width, self.camera.height)
        small = cv2.resize(frame.image, size, interpolation=cv2.INTER_AREA)
        return Frame(frame.index, frame.time, np.asarray(small))


def _lost(reason: str) -> RotationEstimate:
    return RotationEstimate(rotvec=_IDENTITY, status=Status.LOW_TEXTURE, message=reason)


def _grey(frame: Frame) -> NDArray[np.uint8]:
    if frame.image.ndim == 2:
        return frame.image
    import cv2

    return np.asarray(cv2.cvtColor(frame.image, cv2.COLOR_BGR2GRAY))


def least_squares_step(motion: Any, camera: Camera) -> NDArray[np.float64]:
    """The baseline beside every estimate, (3,) rad; NaN where the vectors do not fix it.

    `baselines.least_squares` on the voting grid, by the compiled loop of the refinement: at an
    endless scale every vector has the same weight.
    """
    from visionlab.rotation.refinement_numba import irls

    rows = gather_points(camera, *sample(motion)).rows
    if rows.shape[1] < 2:
        return _NONE
    rotvec, _, _, solved, _ = irls(rows, np.zeros(3), _ENDLESS, _ENDLESS)
    return np.asarray(rotvec) if solved else _NONE


def _row(
    index: int, time: float, before: Row | None, rotvec: Any, status: str, *, segment: int
) -> Row:
    """A row; numbers keep the twelve digits that the files hold, so that resuming is exact."""
    last = [before[f"q{a}"] for a in "xyzw"] if before else [0.0, 0.0, 0.0, 1.0]
    turn = np.where(np.isfinite(rotvec), rotvec, 0.0)
    quaternion = advance(last, turn) if before else np.array(last)
    return {
        "frame": index,
        "time": _cut(time),
        **{f"q{a}": _cut(v) for a, v in zip("xyzw", quaternion)},
        **{f"w{a}": _cut(v) for a, v in zip("xyz", rotvec)},
        "status": str(status),
        "segment": segment,
        "inlier_ratio": nan,
        "peak_share": nan,
        "sigma_deg": nan,
        "parallax_px": nan,
        **{f"heading_{a}": nan for a in "xyz"},
        **{f"ls_w{a}": _cut(v) for a, v in zip("xyz", turn if status == DUPLICATE else _NONE)},
    }


def _estimate_row(
    index: int, time: float, before: Row, estimate: RotationEstimate, simple: Any
) -> Row:
    row = _row(index, time, before, estimate.rotvec, estimate.status, segment=before["segment"])
    row["inlier_ratio"] = _cut(estimate.inlier_ratio)
    row["peak_share"] = _cut(estimate.peak_share)
    row["parallax_px"] = _cut(estimate.parallax)
    if estimate.covariance is not None:
        row["sigma_deg"] = _cut(np.degrees(np.sqrt(np.trace(estimate.covariance) / 3)))
    if estimate.heading is not None:
        row |= {f"heading_{a}": _cut(v) for a, v in zip("xyz", estimate.heading)}
    return row | {f"ls_w{a}": _cut(v) for a, v in zip("xyz", simple)}


def _prior(row: Row) -> RotationEstimate | None:
    """The last answer as the row tells it (not the object: a resumed run has the row only)."""
    rotvec = np.array([row[f"w{a}"] for a in "xyz"])
    heading = np.array([row[f"heading_{a}"] for a in "xyz"])
    if not np.isfinite(rotvec).all():
        return None
    return RotationEstimate(rotvec=rotvec, heading=heading if np.isfinite(heading).all() else None)


def _cut(value: Any) -> float:
    return float(f"{float(value):.12g}")
