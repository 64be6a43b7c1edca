"""Frames of a video, a folder of pictures or a live stream: decoded once, with their times."""

import logging
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

log = logging.getLogger(__name__)

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".pgm", ".webp")
_DEFAULT_FPS = 30.0


@dataclass(frozen=True)
class Frame:
    """One picture: number in the source, time in seconds, grey levels (H, W) uint8."""

    index: int
    time: float
    image: NDArray[np.uint8]


class FrameSource(Protocol):
    """What `open_source` returns. Iterating starts at ``start`` and decodes each frame once."""

    name: str
    size: tuple[int, int]  # width, height in px
    fps: float
    count: int | None  # frames that an iteration yields; None for a live stream
    live: bool

    def frames(self, *, start: int = 0, colour: bool = False) -> Iterator[Frame]:
        """Frames from number ``start`` on; (H, W) grey, or (H, W, 3) BGR with ``colour``."""
        ...


def open_source(
    source: str | Path, *, fps: float | None = None, stop: int | None = None
) -> "FrameSource":
    """Open a video file, a folder of pictures, or a stream (a camera number or a URL).

    Args:
        fps: frames per second of a folder (default 30), or instead of the times of a video.
        stop: frames with this number and later are left out.

    Raises:
        FileNotFoundError: no such file or folder.
        ConnectionError: nothing answers at a stream's address.
        ValueError: no picture in the folder, or a file that is no video.
    """
    text = str(source)
    if fps is not None and not fps > 0:
        raise ValueError(f"fps must be positive, got {fps}")
    if re.fullmatch(r"\d+", text) and not Path(text).exists():
        return LiveStream(int(text), stop=stop)
    if "://" in text:
        return LiveStream(text, stop=stop)
    path = Path(source)
    if not path.exists():
        raise FileNotFoundError(f"no such video or folder: {path}")
    if path.is_dir():
        return ImageFolder(path, fps=fps, stop=stop)
    return VideoFile(path, fps=fps, stop=stop)


class ImageFolder:
    """Pictures of one folder in natural order (frame2 before frame10).

    Args:
        times: seconds of each picture; without them ``index / fps``.
        files: the pictures, where they are not simply all of the folder.
    """

    live = False

    def __init__(
        self,
        folder: str | Path,
        *,
        fps: float | None = None,
        stop: int | None = None,
        times: Any = None,
        files: list[Path] | None = None,
    ) -> None:
        self.name = str(folder)
        if stop is not None and stop < 1:
            raise ValueError(f"stop is {stop}; it is the number of frames to read, 1 or more")
        listed = sorted(Path(folder).iterdir(), key=natural_order) if files is None else files
        self.files = [f for f in listed if f.suffix.lower() in IMAGE_SUFFIXES][:stop]
        if not self.files:
            raise ValueError(f"no picture ({', '.join(IMAGE_SUFFIXES)}) in the folder {folder}")
        if times is not None and len(times) < len(self.files):
            raise ValueError(f"{len(self.files)} pictures in {folder} but {len(times)} times")
        self.fps = fps or (_rate(times) if times is not None else _DEFAULT_FPS)
        self.times = np.arange(len(self.files)) / self.fps if times is None else np.asarray(times)
        self.count: int | None = len(self.files)
        first = read_image(self.files[0])
        self.size = (first.shape[1], first.shape[0])

    def frames(self, *, start: int = 0, colour: bool = False) -> Iterator[Frame]:
        """Frames from number ``start`` on."""
        for index in range(start, len(self.files)):
            image = read_image(self.files[index], colour=colour)
            if image.shape[1::-1] != self.size:
                raise ValueError(
                    f"{self.files[index]} is {image.shape[1]}x{image.shape[0]}, the first picture "
                    f"{self.size[0]}x{self.size[1]}; all must be of one size"
                )
            yield Frame(index, float(self.times[index]), image)


class VideoFile:
    """A video file, decoded by OpenCV; times are those of the container (variable rates too)."""

    live = False

    def __init__(
        self, path: str | Path, *, fps: float | None = None, stop: int | None = None
    ) -> None:
        import cv2

        self.name = str(path)
        self._capture = _open_capture(self.name)
        get = self._capture.get
        self.size = (int(get(cv2.CAP_PROP_FRAME_WIDTH)), int(get(cv2.CAP_PROP_FRAME_HEIGHT)))
        declared = get(cv2.CAP_PROP_FPS)
        self._given_fps = fps
        self.fps = fps or (declared if 0 < declared < 1000 else _DEFAULT_FPS)
        frames = get(cv2.CAP_PROP_FRAME_COUNT)  # nonsense where the container does not say
        self.declared = int(frames) if 0 < frames < 1e9 else 0
        self.stop = stop
        self.count: int | None = min(self.declared, stop or self.declared) or None
        self._next = 0
        self.decoded = 0

    @property
    def truncated(self) -> bool:
        """Whether clearly fewer frames were decoded than the file declares (some only guess)."""
        expected = self.declared if self.stop is None else min(self.declared, self.stop)
        return self.decoded < 0.98 * expected - 2

    def frames(self, *, start: int = 0, colour: bool = False) -> Iterator[Frame]:
        """Frames from number ``start`` on; earlier ones are skipped by decoding.

        Seeking by number is off by some frames in many files, and resuming must be exact.
        """
        if self._next > start:
            self._capture.release()
            self._capture, self._next = _open_capture(self.name), 0
        while self._next < start and self._capture.grab():
            self._next += 1
        last = -np.inf
        while self.stop is None or self._next < self.stop:
            ok, image = self._capture.read()
            if not ok:
                break
            seconds = self._time(self._next, last)
            frame = Frame(self._next, seconds, image if colour else _grey(image))
            last = seconds
            self._next += 1
            self.decoded = max(self.decoded, self._next)
            yield frame

    def _time(self, index: int, last: float) -> float:
        import cv2

        if self._given_fps:
            return index / self.fps
        seconds = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        if np.isfinite(seconds) and seconds > last:
            return seconds
        guess = last + 1 / self.fps
        log.warning(
            "frame %d has no time of its own; %.4f s is assumed from the rate", index, guess
        )
        return guess


class LiveStream:
    """A camera or a network stream; times are those of arrival where the stream has none."""

    live = True

    def __init__(self, address: int | str, *, stop: int | None = None) -> None:
        import cv2

        self.name = str(address)
        self._capture = _open_capture(address)
        get = self._capture.get
        self.size = (int(get(cv2.CAP_PROP_FRAME_WIDTH)), int(get(cv2.CAP_PROP_FRAME_HEIGHT)))
        self.fps = get(cv2.CAP_PROP_FPS) or _DEFAULT_FPS
        self.stop = stop
        self.count: int | None = stop

    def frames(self, *, start: int = 0, colour: bool = False) -> Iterator[Frame]:
        """Frames as they come, until the stream ends or the number ``stop`` is reached."""
        if start:
            raise ValueError("a live stream cannot be taken up again; start it anew")
        began, index = time.monotonic(), 0
        while self.stop is None or index < self.stop:
            ok, image = self._capture.read()
            if not ok:
                return
            yield Frame(index, time.monotonic() - began, image if colour else _grey(image))
            index += 1


def natural_order(path: Path) -> list[tuple[int, int, str]]:
    """Sort key under which 2 comes before 10."""
    parts = re.split(r"(\d+)", path.name)
    return [(0, int(p), "") if p.isdigit() else (1, 0, p) for p in parts]


def read_image(path: str | Path, *, colour: bool = False) -> NDArray[np.uint8]:
    """Grey levels (H, W), or BGR (H, W, 3), of a picture; 16-bit pictures are scaled to 8 bits.

    Raises:
        ValueError: not a picture, or damaged.
    """
    import cv2

    flags = cv2.IMREAD_COLOR if colour else cv2.IMREAD_GRAYSCALE
    image = cv2.imread(str(path), flags)
    if image is None:
        raise ValueError(f"cannot read the picture {path}: damaged, or of an unknown format")
    return np.asarray(image)


def _rate(times: Any) -> float:
    gaps = np.diff(np.asarray(times, np.float64))
    return float(1 / np.median(gaps)) if len(gaps) and np.median(gaps) > 0 else _DEFAULT_FPS


def _grey(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    import cv2

    return np.asarray(image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2GRAY))


def _open_capture(address: int | str) -> Any:
    import cv2

    capture = cv2.VideoCapture(address)
    if not capture.isOpened() and (isinstance(address, int) or "://" in address):
        what = f"camera {address}" if isinstance(address, int) else f"the stream {address}"
        raise ConnectionError(f"cannot open {what}: nothing answers there, or it sends no video")
    if not capture.isOpened():
        raise ValueError(
            f"cannot read {address} as a video: damaged, truncated, not a video, or of a codec "
            "that this OpenCV lacks; re-encode it, or give a folder of pictures"
        )
    return capture
