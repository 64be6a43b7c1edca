"""Synthetic flow with exact ground truth: six scenarios of crowds and parallax.

Each flow is the exact finite projection of a ground plane and a random relief under a known motion,
overlaid with movers, pixel noise and gross errors. Noise is independent per pixel, which is kinder
to dense refinement than real flow.
"""

from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

from visionlab.registry import suggest
from visionlab.rotation import so3
from visionlab.rotation.camera import Camera

Array = NDArray[np.float64]

HEIGHT, WIDTH = 270, 480
DEPTHS = ("relief", "room")


@dataclass(frozen=True)
class Scenario:
    """What one family of flows holds.

    Args:
        max_angle: rotation angles are uniform in [.2, 1] times this, rad.
        focal: px.
        parallax: mean image motion in px that the translation causes at the mean inverse depth.
        movers: share of the image that independently moving rectangles cover.
        forward: translate along the optical axis, nearly, instead of anywhere.
    """

    max_angle: float
    focal: float
    parallax: float
    movers: float
    forward: bool = False


SCENARIOS = {
    "S0": Scenario(0.05, 413.75, 0.0, 0.0),  # pure rotation
    "S1": Scenario(0.05, 413.75, 0.6, 0.40),  # handheld, crowd
    "S2": Scenario(0.05, 413.75, 0.6, 0.65),  # dense crowd
    "S3": Scenario(0.05, 413.75, 2.0, 0.40),  # walking, parallax
    "S4": Scenario(0.02, 413.75, 4.0, 0.20, forward=True),  # driving
    "S5": Scenario(0.10, 200.0, 0.6, 0.40),  # wide angle, fast
}


@dataclass(frozen=True, eq=False)
class Scene:
    """One flow field and the truth behind it."""

    flow: NDArray[np.float32]
    """(H, W, 2) px."""
    camera: Camera
    rotvec: Array
    """(3,) rad, the camera's rotation."""
    translation: Array
    """(3,) camera motion in units of the mean depth's inverse, axes of frame i; zeros in S0."""
    inverse_depth: Array
    """(H, W), mean 1."""
    static: NDArray[np.bool_]
    """(H, W), False on movers."""

    @property
    def heading(self) -> Array:
        """(3,) unit direction of motion in axes of frame i+1, as estimators report it."""
        turned = so3.exp(self.rotvec).T @ self.translation
        return turned / max(float(np.linalg.norm(turned)), 1e-300)


def make_scene(
    scenario: str | Scenario,
    index: int = 0,
    *,
    seed: int = 0,
    noise: float = 0.3,
    depth: str = "relief",
    angle: float | None = None,
) -> Scene:
    """The ``index``-th flow of a scenario; the same arguments give the same flow.

    Args:
        scenario: ``S0`` to ``S5``, or a scenario of one's own.
        noise: standard deviation in px of the noise on every component.
        depth: ``relief`` (ground plane, random relief, far regions) or ``room`` (three planes and
            nothing far).
        angle: the rotation angle in rad, instead of a random one.

    Raises:
        ValueError: an unknown scenario or depth.

    Example:
        >>> make_scene("S0", seed=1).flow.shape
        (270, 480, 2)
    """
    if isinstance(scenario, str):
        if scenario not in SCENARIOS:
            raise ValueError(f"no scenario '{scenario}'. {suggest(scenario, SCENARIOS)}")
        key, scenario = list(SCENARIOS).index(scenario), SCENARIOS[scenario]
    else:
        key = len(SCENARIOS)
    if depth not in DEPTHS:
        raise ValueError(f"no scene depth '{depth}'. {suggest(depth, DEPTHS)}")
    rng = np.random.default_rng([seed, key, index])
    camera = Camera.from_focal(scenario.focal, WIDTH, HEIGHT)
    rotvec = _direction(rng) * (rng.uniform(0.2, 1.0) * scenario.max_angle)
    if angle is not None:
        rotvec *= angle / np.linalg.norm(rotvec)
    towards = _direction(rng)
    if scenario.forward:
        towards = np.array([0.0, 0.0, 1.0]) + rng.normal(0, 0.1, 3)
        towards /= np.linalg.norm(towards)
    inverse_depth = (_relief if depth == "relief" else _room)(rng, scenario.focal)
    x, y = _plane(scenario.focal)
    pull = (
        scenario.focal * np.hypot(towards[2] * x - towards[0], towards[2] * y - towards[1]).mean()
    )
    translation = towards * (scenario.parallax / pull)
    flow = _project(rotvec, translation, inverse_depth, scenario.focal)
    static = _add_movers(rng, flow, scenario.movers)
    flow += rng.normal(0, noise, flow.shape)
    gross = rng.random(flow.shape[:2]) < 0.03
    flow[gross] += rng.normal(0, 8.0, (int(gross.sum()), 2))
    return Scene(flow.astype(np.float32), camera, rotvec, translation, inverse_depth, static)


def _direction(rng: np.random.Generator) -> Array:
    vector = rng.normal(size=3)
    return vector / np.linalg.norm(vector)


def _plane(focal: float) -> tuple[Array, Array]:
    """Normalised coordinates x (1, W) and y (H, 1) of all pixels."""
    x = (np.arange(WIDTH, dtype=np.float64) - (WIDTH - 1) / 2) / focal
    y = (np.arange(HEIGHT, dtype=np.float64) - (HEIGHT - 1) / 2) / focal
    return x[None], y[:, None]


def smooth_field(nodes: Array, height: int, width: int) -> Array:
    """Bilinear enlargement of a coarse grid of values to (height, width), as images are resized."""

    def between(values: Array, count: int) -> Array:
        at = ((np.arange(count) + 0.5) * len(values) / count - 0.5).clip(0, len(values) - 1)
        low = np.minimum(at.astype(int), len(values) - 2)
        share = (at - low)[:, None]
        return values[low] * (1 - share) + values[low + 1] * share

    return between(between(nodes, height).T, width).T


def _relief(rng: np.random.Generator, focal: float) -> Array:
    _, y = _plane(focal)
    ground = 0.8 * (y - rng.uniform(-0.15, 0.10))
    relief = 0.25 * smooth_field(rng.gamma(0.6, size=(6, 9)), HEIGHT, WIDTH)
    depth = np.maximum(ground, relief)
    far = smooth_field(rng.random((3, 4)), HEIGHT, WIDTH) > 0.65
    depth = np.where(far, 0.05 * depth, depth)
    return depth / depth.mean()


def _room(rng: np.random.Generator, focal: float) -> Array:
    """Floor, back wall and side wall: the nearest of three planes, all within a factor of four."""
    x, y = _plane(focal)
    back = 1 + 0.3 * rng.normal() * x
    floor = rng.uniform(1.5, 3.0) * (y + rng.uniform(0.0, 0.2))
    side = rng.uniform(1.0, 2.5) * (rng.choice([-1.0, 1.0]) * x + rng.uniform(0.0, 0.2))
    depth = np.maximum(np.maximum(back, floor), side).clip(0.3)
    return depth / depth.mean()


def _project(rotvec: Array, translation: Array, inverse_depth: Array, focal: float) -> Array:
    """Flow (H, W, 2) in px of static points: p' ~ R^T (p - t / depth)."""
    x, y = _plane(focal)
    points = np.stack(
        [
            x - inverse_depth * translation[0],
            y - inverse_depth * translation[1],
            1 - inverse_depth * translation[2],
        ],
        -1,
    )
    moved = points @ so3.exp(rotvec)
    return focal * np.stack(
        [moved[..., 0] / moved[..., 2] - x, moved[..., 1] / moved[..., 2] - y], -1
    )


def _add_movers(rng: np.random.Generator, flow: Array, share: float) -> NDArray[np.bool_]:
    """Add rectangles of constant velocity until they cover ``share``; returns what stays static."""
    static = np.ones(flow.shape[:2], bool)
    while 1 - static.mean() < share:
        width = ceil(rng.uniform(0.06, 0.25) * WIDTH)
        height = ceil(rng.uniform(0.20, 0.60) * HEIGHT)
        left = rng.integers(-width // 2, WIDTH - width // 2)
        top = rng.integers(-height // 2, HEIGHT - height // 2)
        rows = slice(max(top, 0), max(top + height, 0))
        columns = slice(max(left, 0), max(left + width, 0))
        velocity = rng.normal(size=2) * rng.uniform(1.0, 6.0)
        part = flow[rows, columns]
        wobble = 0.5 * rng.normal(size=(2, 4, 4))
        part += velocity + np.stack([smooth_field(w, *part.shape[:2]) for w in wobble], -1)
        static[rows, columns] = False
    return static
