"""A virtual pan-tilt-roll camera over a static video or a photograph: exact rotation, real pixels.

The picture of a static camera is a window on the world. A camera at the same place with the
orientation R sees it through the homography ``K_source R K^-1`` (its pixel -> source pixel). There
is no parallax, no rolling shutter, and the source's field of view is assumed: a test of correctness
and of crowds, not a replacement for handheld footage.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from visionlab.rotation import so3
from visionlab.rotation.camera import Camera
from visionlab.rotation.trajectory import Trajectory
from visionlab.rotation.trajectory_files import write_csv
from visionlab.rotation.video import IMAGE_SUFFIXES, Frame, open_source, read_image

log = logging.getLogger(__name__)
Array = NDArray[np.float64]
Image = NDArray[np.uint8]

SOURCE_FOV = 73.0  # deg, horizontal, of a common wide lens
_FREQUENCIES = (0.3, 5.5)  # Hz: slow pan to hand shake


def smooth_rotations(
    count: int, *, rng: np.random.Generator, fps: float = 25.0, peak_deg: ArrayLike = 5.0
) -> Array:
    """(count, 3) rotation vectors in rad: per axis a sum of five sinusoids, slow ones strongest.

    Args:
        peak_deg: largest angle per axis, one number or three.
    """
    seconds = np.arange(count) / fps
    low, high = np.log(_FREQUENCIES)
    frequencies = np.exp(rng.uniform(low, high, (3, 5)))
    phases = rng.uniform(0, 2 * np.pi, (3, 5))
    waves = np.sin(2 * np.pi * frequencies[..., None] * seconds + phases[..., None])
    sums = (waves / frequencies[..., None] ** 0.8).sum(1)
    sums /= np.abs(sums).max(1, keepdims=True)
    return np.radians(np.broadcast_to(peak_deg, 3)) * sums.T


@dataclass(frozen=True)
class Billboard:
    """A textured rectangle that moves in the world, seen by the static camera."""

    texture: Image
    start: Array  # (2,) px, top left corner at frame 0
    velocity: Array  # (2,) px per frame

    def place(self, index: int, size: tuple[int, int]) -> tuple[int, int]:
        """Top left corner at a frame; it bounces off the borders of the picture."""
        room = np.array(size) - self.texture.shape[1::-1]
        position = self.start + self.velocity * index
        fold = np.mod(position, 2 * room)
        x, y = np.round(np.where(fold > room, 2 * room - fold, fold)).astype(int)
        return int(x), int(y)


class VirtualCamera:
    """Frames of a rotating camera over a source, with their exact orientations.

    Args:
        source: a video, a folder of pictures, or a photograph (used for every frame).
        size: width and height of the output in px.
        focal: focal length of the output in px.
        frames: how many; a shorter source runs forth and back.
        fps: of the output.
        source_fov: horizontal field of view of the source in degrees.
        peak_deg: largest angle per axis (one number, or tilt, pan, roll). It is lowered until
            every corner of the view stays inside the source.
        movers: rectangles that move in the world, cut from the source itself.
        noise: standard deviation of added grey-level noise.
        seed: of the rotations, the movers and the noise.

    Raises:
        FileNotFoundError: no such source.
        ValueError: a view that does not fit into the source at all, fewer than two frames.

    Example:
        >>> photo = np.random.default_rng(0).integers(0, 255, (240, 320)).astype(np.uint8)
        >>> clip = VirtualCamera(photo, size=(160, 90), focal=200.0, frames=3, seed=1)
        >>> [frame.image.shape for frame in clip.frames()], len(clip.truth)
        ([(90, 160), (90, 160), (90, 160)], 3)
    """

    live = False

    def __init__(
        self,
        source: str | Path | Image,
        *,
        size: tuple[int, int] = (480, 270),
        focal: float = 413.75,
        frames: int = 150,
        fps: float = 25.0,
        source_fov: float = SOURCE_FOV,
        peak_deg: float | tuple[float, float, float] = 5.0,
        movers: int = 0,
        noise: float = 0.0,
        seed: int = 0,
    ) -> None:
        if frames < 2:
            raise ValueError(f"a sequence needs at least two frames, got {frames}")
        self.name = "array" if isinstance(source, np.ndarray) else str(source)
        self.size, self.fps, self.count = size, fps, frames
        self.camera = Camera.from_focal(focal, *size)
        self._source = source
        self._noise = noise
        self._seed = seed
        first = next(self._pictures(colour=True))
        self._eye = Camera.from_fov(source_fov, first.shape[1], first.shape[0])
        rng = np.random.default_rng([seed, 0])
        wish = smooth_rotations(frames, rng=rng, fps=fps, peak_deg=peak_deg)
        self.rotvecs = wish * self._fitting_scale(wish)
        self.movers = _billboards(first, movers, rng=np.random.default_rng([seed, 1]))
        times = np.arange(frames) / fps
        self.truth = Trajectory(np.arange(frames), times, so3.quaternion_from_rotvec(self.rotvecs))

    def frames(self, *, start: int = 0, colour: bool = False) -> Iterator[Frame]:
        """Rendered frames from number ``start`` on; (H, W) grey, or BGR with ``colour``."""
        pictures = self._pictures(colour=colour)
        for index in range(self.count):
            picture = next(pictures)
            if index >= start:
                picture = _channels(picture, colour=colour)
                yield Frame(index, index / self.fps, self._render(picture, index))

    def write(self, folder: str | Path) -> Path:
        """Store PNG frames, ``gt.csv`` and ``cameras.txt``: a sequence of the format ``csv``.

        Raises:
            FileExistsError: the folder exists and is not empty.
        """
        import cv2

        root = Path(folder)
        if root.exists() and any(root.iterdir()):
            raise FileExistsError(f"{root} is not empty; name another folder or empty it")
        (root / "frames").mkdir(parents=True, exist_ok=True)
        for frame in self.frames(colour=True):
            cv2.imwrite(str(root / "frames" / f"{frame.index:06d}.png"), frame.image)
        write_csv(self.truth, root / "gt.csv")
        c = self.camera
        (root / "cameras.txt").write_text(
            "# COLMAP: camera id, model, width, height, f, cx, cy (first pixel centre at .5)\n"
            f"1 SIMPLE_PINHOLE {c.width} {c.height} {c.fx!r} {c.cx + 0.5!r} {c.cy + 0.5!r}\n"
        )
        return root

    def _pictures(self, *, colour: bool = False) -> Iterator[Image]:
        source = self._source
        if isinstance(source, np.ndarray):
            while True:
                yield source
        if Path(source).suffix.lower() in IMAGE_SUFFIXES:
            if not Path(source).is_file():
                raise FileNotFoundError(f"no such photograph: {source}")
            picture = read_image(source, colour=colour)
            while True:
                yield picture
        kept: list[Image] = []
        for frame in open_source(source, stop=self.count).frames(colour=colour):
            kept.append(frame.image)
            yield frame.image
        if not kept:
            raise ValueError(f"no frame could be read from {source}")
        turn = [*reversed(kept[:-1]), *kept[1:]] or kept
        while True:
            yield from turn

    def _to_source(self, rotation: Array) -> Array:
        """Homography (3, 3) from output pixels to source pixels."""
        return _matrix(self._eye) @ rotation @ np.linalg.inv(_matrix(self.camera))

    def _fitting_scale(self, rotvecs: Array) -> float:
        """Largest factor up to 1 under which no view leaves the source."""
        low, high = 0.0, 1.0
        if not self._inside(rotvecs * 0):
            raise ValueError(
                f"a view of {self.size[0]}x{self.size[1]} px with focal {self.camera.fx:g} px is "
                f"wider than the source ({self._eye.width}x{self._eye.height} px, focal "
                f"{self._eye.fx:.0f} px); raise focal or source_fov"
            )
        if self._inside(rotvecs):
            return 1.0
        for _ in range(20):
            middle = (low + high) / 2
            low, high = (middle, high) if self._inside(rotvecs * middle) else (low, middle)
        log.info("rotations scaled by %.2f so that every view stays inside the source", low)
        return low

    def _inside(self, rotvecs: Array) -> bool:
        w, h = self.size
        corners = np.array([[0, 0, 1], [w - 1, 0, 1], [0, h - 1, 1], [w - 1, h - 1, 1]], float)
        seen = corners @ np.swapaxes(self._to_source(so3.exp(rotvecs)), -1, -2)
        pixel = seen[..., :2] / seen[..., 2:]
        limit = (self._eye.width - 1, self._eye.height - 1)
        return bool((seen[..., 2] > 0).all() and (pixel >= 0).all() and (pixel <= limit).all())

    def _render(self, picture: Image, index: int) -> Image:
        import cv2

        world = picture.copy() if self.movers else picture
        for board in self.movers:
            x, y = board.place(index, (world.shape[1], world.shape[0]))
            texture = _channels(board.texture, colour=world.ndim == 3)
            world[y : y + texture.shape[0], x : x + texture.shape[1]] = texture
        view = cv2.warpPerspective(
            world,
            self._to_source(so3.exp(self.rotvecs[index])),
            self.size,
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REFLECT,
        )
        if not self._noise:
            return np.asarray(view)
        rng = np.random.default_rng([self._seed, 2, index])
        noisy = view + rng.normal(0, self._noise, view.shape)
        return np.clip(np.round(noisy), 0, 255).astype(np.uint8)


def _channels(picture: Image, *, colour: bool) -> Image:
    import cv2

    if colour == (picture.ndim == 3):
        return picture
    code = cv2.COLOR_GRAY2BGR if colour else cv2.COLOR_BGR2GRAY
    return np.asarray(cv2.cvtColor(picture, code))


def _matrix(camera: Camera) -> Array:
    return np.array([[camera.fx, 0, camera.cx], [0, camera.fy, camera.cy], [0, 0, 1.0]])


def _billboards(picture: Image, count: int, *, rng: np.random.Generator) -> tuple[Billboard, ...]:
    """Patches of 8-20 % of the width and 25-50 % of the height that move 1-6 px a frame."""
    height, width = picture.shape[:2]
    boards = []
    for _ in range(count):
        w, h = int(width * rng.uniform(0.08, 0.20)), int(height * rng.uniform(0.25, 0.5))
        x, y = rng.integers(0, width - w), rng.integers(0, height - h)
        texture = picture[y : y + h, x : x + w, ...].copy()
        angle, speed = rng.uniform(0, 2 * np.pi), rng.uniform(1, 6)
        velocity = speed * np.array([np.cos(angle), np.sin(angle)])
        boards.append(Billboard(texture, rng.uniform(0, [width - w, height - h]), velocity))
    return tuple(boards)
