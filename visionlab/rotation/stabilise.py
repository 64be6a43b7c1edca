"""A steady video from a shaky one: smooth the orientations, turn each picture accordingly.

Rotation alone is corrected (no parallax, no rolling shutter), for every camera model; the output is
a pinhole picture without distortion.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionlab.rotation import so3
from visionlab.rotation.camera import Camera
from visionlab.rotation.trajectory import Trajectory, relative
from visionlab.rotation.video import Frame

Array = NDArray[np.float64]

_REACH = 3.0  # standard deviations of the window
_CODECS = {".mp4": "mp4v", ".avi": "MJPG", ".mkv": "mp4v", ".mov": "mp4v"}


@dataclass(frozen=True)
class Plan:
    """How to turn each picture.

    ``corrections`` (N, 3) rad lead from the steady camera's axes to the shaky one's; ``camera`` is
    the pinhole that sees the steady view; ``strength`` is the part of the correction that fits.
    """

    frames: NDArray[np.int64]
    corrections: Array
    camera: Camera
    zoom: float
    strength: float


def smoothed(trajectory: Trajectory, *, seconds: float) -> Array:
    """Quaternions (N, 4) after a Gaussian low-pass of standard deviation ``seconds``.

    One step of the weighted mean on SO(3) around each frame's own orientation; windows end at cuts.

    Raises:
        ValueError: ``seconds`` is not positive.
    """
    if not seconds > 0:
        raise ValueError(f"seconds of smoothing must be positive, got {seconds}")
    quaternions, times, segments = trajectory.quaternions, trajectory.times, trajectory.segments
    count = len(trajectory)
    total, weight = np.zeros((count, 3)), np.ones((count, 1))
    for offset in range(1, count):
        gap = times[offset:] - times[:-offset]
        w = np.exp(-0.5 * (gap / seconds) ** 2) * (segments[offset:] == segments[:-offset])
        if gap.min() > _REACH * seconds:
            break
        step = relative(quaternions[:-offset], quaternions[offset:])
        total[:-offset] += w[:, None] * step
        weight[:-offset] += w[:, None]
        # log(q_k^-1 q_i) = -log(q_i^-1 q_k)
        total[offset:] -= w[:, None] * step
        weight[offset:] += w[:, None]
    product = so3.multiply(quaternions, so3.quaternion_from_rotvec(total / weight))
    return np.asarray(product / np.linalg.norm(product, axis=1, keepdims=True))


def plan(
    trajectory: Trajectory, camera: Camera, *, seconds: float = 0.5, max_zoom: float = 1.3
) -> Plan:
    """Corrections that leave no border empty.

    The smallest zoom that shows picture everywhere is taken. Where even ``max_zoom`` does not
    suffice, all corrections are made weaker by one factor, so that the motion stays smooth.

    Raises:
        ValueError: smoothing that is not positive, a zoom below 1.
    """
    if max_zoom < 1:
        raise ValueError(f"max_zoom must be at least 1, got {max_zoom}")
    wish = relative(trajectory.quaternions, smoothed(trajectory, seconds=seconds))

    def fits(zoom: float, strength: float) -> bool:
        return _covered(camera, _view(camera, zoom), wish * strength)

    zoom = _smallest(lambda z: fits(z, 1.0), 1.0, max_zoom)
    strength = 1.0
    if zoom is None:
        zoom = max_zoom
        weaker = _smallest(lambda s: fits(max_zoom, 1.0 - s), 0.0, 1.0)
        if weaker is None:
            raise ValueError(
                f"even without any correction the undistorted view is not covered at a zoom of "
                f"{max_zoom:g}: raise max_zoom"
            )
        strength = 1.0 - weaker
    return Plan(trajectory.frames, wish * strength, _view(camera, zoom), zoom, strength)


def write_stabilised(
    frames: Iterable[Frame], plan: Plan, camera: Camera, path: str | Path, *, fps: float
) -> Path:
    """Write the steady video; it appears under ``path`` once complete. Sound is not copied.

    Args:
        frames: of the source, in any size (the camera is scaled to it); those without a
            correction are left out.
        fps: of the output, which has a constant rate.

    Raises:
        ValueError: a file suffix without a known codec, or no frame to write.
    """
    import cv2

    target = Path(path)
    if target.suffix.lower() not in _CODECS:
        raise ValueError(f"write videos as {', '.join(_CODECS)}, got '{target.name}'")
    temporary = target.with_name(f".{os.getpid()}.{target.name}")
    place = {int(frame): i for i, frame in enumerate(plan.frames)}
    writer: Any = None
    try:
        for frame in frames:
            if frame.index not in place:
                continue
            picture = turn(frame.image, plan, camera, plan.corrections[place[frame.index]])
            if writer is None:
                size = (picture.shape[1], picture.shape[0])
                code = cv2.VideoWriter.fourcc(*_CODECS[target.suffix.lower()])
                writer = cv2.VideoWriter(str(temporary), code, fps, size)
            writer.write(
                picture if picture.ndim == 3 else cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR)
            )
        if writer is None:
            raise ValueError("no frame to stabilise")
        writer.release()
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    return target


def turn(image: NDArray[np.uint8], plan: Plan, camera: Camera, correction: Array) -> Any:
    """The steady view of one picture (H, W[, 3])."""
    import cv2

    height, width = image.shape[:2]
    camera, view = camera.scaled(width, height), plan.camera.scaled(width, height)
    rotation = so3.exp(correction)
    if camera.model == "pinhole":
        to_source = _matrix(camera) @ rotation @ np.linalg.inv(_matrix(view))
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return cv2.warpPerspective(image, to_source, (width, height), flags=flags)
    pixels = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1)
    source = camera.project(view.bearings(pixels) @ rotation.T).astype(np.float32)
    return cv2.remap(image, source[..., 0], source[..., 1], cv2.INTER_LINEAR)


def _view(camera: Camera, zoom: float) -> Camera:
    pinhole = replace(camera, distortion=None, model="pinhole")
    return replace(pinhole, fx=camera.fx * zoom, fy=camera.fy * zoom)


def _covered(camera: Camera, view: Camera, corrections: Array) -> bool:
    """Whether every border pixel of the view looks into the source picture."""
    w, h = view.width - 1, view.height - 1
    along = np.linspace(0, 1, 9)
    border = np.concatenate(
        [np.stack([w * along, edge * np.ones(9)], 1) for edge in (0, h)]
        + [np.stack([edge * np.ones(9), h * along], 1) for edge in (0, w)]
    )
    rays = view.bearings(border) @ np.swapaxes(so3.exp(corrections), 1, 2)
    with np.errstate(invalid="ignore"):
        pixels = camera.project(rays)
        inside = (pixels >= -1e-6) & (pixels <= np.array([w, h]) + 1e-6)
    return bool(inside.all())  # NaN, a ray that no pixel sees, is outside


def _smallest(holds: Any, low: float, high: float) -> float | None:
    """Smallest value of a monotone condition by bisection; None if it never holds."""
    if holds(low):
        return low
    if not holds(high):
        return None
    for _ in range(16):
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _matrix(camera: Camera) -> Array:
    return np.array([[camera.fx, 0, camera.cx], [0, camera.fy, camera.cy], [0, 0, 1.0]])
