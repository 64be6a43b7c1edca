"""Camera models: pixels to rays and back.

Pixel centres lie at integers, so an uncalibrated principal point is ``((w-1)/2, (h-1)/2)``.
"""

from dataclasses import dataclass, replace
from math import isfinite, pi, radians, tan
from numbers import Real
from pathlib import Path
from typing import Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from visionlab.registry import suggest
from visionlab.rotation import distortion as lens

Array = NDArray[np.float64]
Model = Literal["pinhole", "brown_conrady", "fisheye", "fov"]

_COEFFICIENTS = {"pinhole": (0,), "brown_conrady": (4, 5, 8), "fisheye": (4,), "fov": (1,)}


@dataclass(frozen=True)
class Camera:
    """Intrinsics of one camera.

    Args:
        fx: focal length in px along x.
        fy: focal length in px along y.
        cx: principal point in px; pixel centres are integers.
        cy: principal point in px.
        width: image width in px.
        height: image height in px.
        distortion: coefficients in OpenCV's order: ``k1 k2 p1 p2 [k3 [k4 k5 k6]]`` for
            ``brown_conrady``, ``k1 k2 k3 k4`` for ``fisheye`` (Kannala-Brandt), ``omega`` for
            ``fov`` (Devernay-Faugeras).
        model: ``pinhole``, ``brown_conrady``, ``fisheye`` or ``fov``; without it ``pinhole``, or
            ``brown_conrady`` where coefficients are given.

    Raises:
        ValueError: a focal length that is not positive, an empty image, a wrong coefficient count.

    Example:
        >>> camera = Camera.from_fov(60.0, 480, 270)
        >>> camera.project([[0.0, 0.0, 1.0]]).tolist()
        [[239.5, 134.5]]
    """

    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int
    distortion: tuple[float, ...] | None = None
    model: Model | None = None

    def __post_init__(self) -> None:
        coefficients = tuple(float(c) for c in (() if self.distortion is None else self.distortion))
        model = self.model or ("brown_conrady" if coefficients else "pinhole")
        if model not in _COEFFICIENTS:
            raise ValueError(f"no camera model '{model}'. {suggest(model, _COEFFICIENTS)}")
        for name in ("fx", "fy", "cx", "cy"):
            value = getattr(self, name)
            if not isinstance(value, Real):
                raise TypeError(f"camera {name} must be a number of pixels, got {value!r}")
            value = float(value)
            if not isfinite(value) or (name[0] == "f" and value <= 0):
                raise ValueError(
                    f"camera {name} must be a {'positive' if name[0] == 'f' else 'finite'} number "
                    f"of pixels, got {value}; take it from the calibration or use "
                    "Camera.from_fov(degrees, width, height)"
                )
            object.__setattr__(self, name, value)
        for name in ("width", "height"):
            value = getattr(self, name)
            if not isinstance(value, Real) or not float(value).is_integer() or value < 2:
                raise ValueError(
                    f"camera {name} must be a whole number of pixels >= 2, got {value!r}"
                )
            object.__setattr__(self, name, int(float(value)))
        if len(coefficients) not in _COEFFICIENTS[model]:
            wanted = " or ".join(map(str, _COEFFICIENTS[model]))
            raise ValueError(
                f"camera model '{model}' takes {wanted} distortion coefficients, "
                f"got {len(coefficients)}"
            )
        if not all(map(isfinite, coefficients)):
            raise ValueError(f"distortion coefficients must be finite, got {coefficients}")
        object.__setattr__(self, "model", model)
        object.__setattr__(self, "distortion", coefficients or None)

    @classmethod
    def from_fov(cls, degrees: float, width: int, height: int, *, axis: str = "horizontal") -> Self:
        """Pinhole camera with square pixels and a field of view across the whole image.

        Args:
            degrees: full field of view, between 0 and 180.
            axis: ``horizontal``, ``vertical`` or ``diagonal``.

        Raises:
            ValueError: a field of view outside (0, 180), an unknown axis.
        """
        sides = {"horizontal": width, "vertical": height, "diagonal": np.hypot(width, height)}
        if axis not in sides:
            raise ValueError(f"no field-of-view axis '{axis}'. {suggest(axis, sides)}")
        if not isinstance(degrees, Real) or not 0 < degrees < 180:
            raise ValueError(
                "the field of view of a pinhole camera lies between 0 and 180 degrees, "
                f"got {degrees!r}"
            )
        return cls.from_focal(float(sides[axis]) / 2 / tan(radians(degrees) / 2), width, height)

    @classmethod
    def from_focal(cls, focal: float, width: int, height: int) -> Self:
        """Pinhole camera with square pixels and a centred principal point; ``focal`` in px."""
        return cls(focal, focal, (width - 1) / 2, (height - 1) / 2, width, height)

    @classmethod
    def from_file(cls, path: str | Path, *, kind: str | None = None) -> "Camera":
        """Read a calibration file of one of the formats of `calibration.read_camera`."""
        from visionlab.rotation.calibration import read_camera

        return read_camera(path, kind=kind)

    @property
    def focal(self) -> float:
        """Geometric mean of the focal lengths, px."""
        return float(np.sqrt(self.fx * self.fy))

    def scaled(self, width: int, height: int) -> Self:
        """The same camera for a resized image; pixel centres stay at integers."""
        sx, sy = width / self.width, height / self.height
        return replace(
            self,
            fx=self.fx * sx,
            fy=self.fy * sy,
            cx=(self.cx + 0.5) * sx - 0.5,
            cy=(self.cy + 0.5) * sy - 0.5,
            width=width,
            height=height,
        )

    def normalise(self, pixels: ArrayLike) -> Array:
        """Undistorted coordinates (x/z, y/z) on the plane z = 1 of pixels (..., 2).

        Rays at 90 degrees or more from the axis, and pixels that no ray reaches, give NaN.
        """
        uv = np.asarray(pixels, np.float64)
        plane = (uv - (self.cx, self.cy)) / (self.fx, self.fy)
        if self.model == "pinhole":
            return plane
        coefficients = np.array(self.distortion)
        if self.model == "brown_conrady":
            return lens.undistort_brown_conrady(plane, coefficients)
        radius, angle = self._ray_angle(plane)
        with np.errstate(invalid="ignore"):
            stretch = np.where(angle < pi / 2, np.tan(np.minimum(angle, 1.57)), np.nan)
        return plane * np.where(radius > 1e-12, stretch / np.maximum(radius, 1e-12), 1.0)[..., None]

    def bearings(self, pixels: ArrayLike) -> Array:
        """Unit rays (..., 3) of pixels (..., 2); fisheye rays may lie behind the image plane."""
        uv = np.asarray(pixels, np.float64)
        if self.model in ("fisheye", "fov"):
            plane = (uv - (self.cx, self.cy)) / (self.fx, self.fy)
            radius, angle = self._ray_angle(plane)
            ratio = np.where(radius > 1e-12, np.sin(angle) / np.maximum(radius, 1e-12), 1.0)
            return np.concatenate([plane * ratio[..., None], np.cos(angle)[..., None]], -1)
        plane = self.normalise(uv)
        rays = np.concatenate([plane, np.ones((*plane.shape[:-1], 1))], -1)
        return rays / np.linalg.norm(rays, axis=-1, keepdims=True)

    def project(self, points: ArrayLike) -> Array:
        """Pixels (..., 2) of points (..., 3) in camera axes; NaN for points that no pixel sees."""
        xyz = np.asarray(points, np.float64)
        if self.model in ("fisheye", "fov"):
            side = np.linalg.norm(xyz[..., :2], axis=-1)
            angle = np.arctan2(side, xyz[..., 2])
            radius = (
                lens.fisheye_radius(angle, np.array(self.distortion))
                if self.model == "fisheye"
                else lens.fov_radius(angle, self.distortion[0])  # type: ignore[index]
            )
            scale = np.where(
                side > 1e-12, radius / np.maximum(side, 1e-12), 1 / np.abs(xyz[..., 2] + 1e-300)
            )
            plane = xyz[..., :2] * scale[..., None]
        else:
            depth = xyz[..., 2:]
            plane = xyz[..., :2] / np.where(depth > 0, depth, np.nan)
            if self.model == "brown_conrady":
                plane = lens.distort_brown_conrady(plane, np.array(self.distortion))
        return plane * (self.fx, self.fy) + (self.cx, self.cy)

    def _ray_angle(self, plane: Array) -> tuple[Array, Array]:
        """Distorted radius and angle from the axis (rad) of fisheye and fov pixels."""
        radius = np.linalg.norm(plane, axis=-1)
        assert self.distortion is not None
        if self.model == "fov":
            return radius, lens.fov_angle(radius, self.distortion[0])
        return radius, lens.fisheye_angle(radius, np.array(self.distortion))


# the two constructors as functions, for the registry of config components
from_fov = Camera.from_fov
from_focal = Camera.from_focal
