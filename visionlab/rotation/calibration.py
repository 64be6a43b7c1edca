"""Calibration files of others as cameras: OpenCV, COLMAP, KITTI, EuRoC, Kalibr and TUM.

Our pixel centres lie at integers. COLMAP and the TUM monocular format put the centre of the first
pixel at (.5, .5), so their principal points are moved by half a pixel; the others agree with ours.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from visionlab.registry import suggest
from visionlab.rotation.camera import Camera, Model

Size = tuple[int, int]

# COLMAP's models: ours, how many focal lengths, and where each parameter goes in OpenCV's order
_COLMAP: dict[str, tuple[Model, int, int]] = {
    "SIMPLE_PINHOLE": ("pinhole", 1, 0),
    "PINHOLE": ("pinhole", 2, 0),
    "SIMPLE_RADIAL": ("brown_conrady", 1, 1),
    "RADIAL": ("brown_conrady", 1, 2),
    "OPENCV": ("brown_conrady", 2, 4),
    "FULL_OPENCV": ("brown_conrady", 2, 8),
    "SIMPLE_RADIAL_FISHEYE": ("fisheye", 1, 1),
    "RADIAL_FISHEYE": ("fisheye", 1, 2),
    "OPENCV_FISHEYE": ("fisheye", 2, 4),
    "FOV": ("fov", 2, 1),
}
_MODELS: dict[str, Model] = {
    "radtan": "brown_conrady",
    "radial-tangential": "brown_conrady",
    "plumb_bob": "brown_conrady",
    "rational_polynomial": "brown_conrady",
    "equidistant": "fisheye",
    "fisheye": "fisheye",
    "kannala_brandt": "fisheye",
    "fov": "fov",
    "none": "pinhole",
    "pinhole": "pinhole",
}
# TUM RGB-D ships no calibration file; these are the benchmark's published colour intrinsics
_TUM_RGBD: dict[str, tuple[float, ...]] = {
    "freiburg1": (517.3, 516.5, 318.6, 255.3, 0.2624, -0.9531, -0.0054, 0.0026, 1.1633),
    "freiburg2": (520.9, 521.0, 325.1, 249.7, 0.2312, -0.7849, -0.0033, -0.0001, 0.9172),
    "freiburg3": (535.4, 539.2, 320.1, 247.6),
}


def read_camera(
    path: str | Path, kind: str | None = None, *, size: Size | None = None, name: str | None = None
) -> Camera:
    """Read a camera from a calibration file.

    Args:
        kind: ``opencv`` (YAML, XML or JSON of ``cv2.FileStorage``), ``colmap`` (cameras.txt),
            ``kitti`` (calib.txt or calib_cam_to_cam.txt), ``euroc`` (sensor.yaml, or a Kalibr
            camchain), ``tum`` (camera.txt of the monocular set, or a folder or file whose path
            names freiburg1, 2 or 3); from the file itself where it is None.
        size: image (width, height) in px, for formats that do not hold it (KITTI odometry).
        name: which camera of a file that holds several: ``P2``, ``cam1``, a COLMAP camera id.

    Raises:
        FileNotFoundError: no such file.
        ValueError: an unknown kind or model, or a file that lacks what the kind needs.
    """
    path = Path(path)
    kind = kind or _guess(path)
    if kind not in READERS:
        raise ValueError(f"no calibration kind '{kind}'. {suggest(kind, READERS)}")
    if not path.exists() and _freiburg(path) is None:
        raise FileNotFoundError(f"no calibration file at {path}")
    try:
        return READERS[kind](path, size, name)
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError(f"{path} is no complete {kind} calibration: missing {error}") from error


def _guess(path: Path) -> str:
    if _freiburg(path) or path.name == "camera.txt":
        return "tum"
    if not path.is_file():
        raise FileNotFoundError(f"no calibration file at {path}")
    text = path.read_text(errors="replace")
    if path.suffix == ".txt":
        return "kitti" if "P0:" in text or "P_rect_" in text or "P2:" in text else "colmap"
    return "euroc" if "intrinsics" in text else "opencv"


def _freiburg(path: Path) -> str | None:
    return next((key for key in _TUM_RGBD if key in str(path)), None)


def _read_opencv(path: Path, size: Size | None, name: str | None) -> Camera:
    import cv2

    try:
        store = cv2.FileStorage(str(path), cv2.FILE_STORAGE_READ)
    except cv2.error as error:
        raise ValueError(f"{path} cannot be read as an OpenCV file: {error.err}") from error

    def first(*keys: str) -> Any:
        for key in keys:
            node = store.getNode(key)
            if not node.empty():
                matrix = node.mat() if node.isMap() or node.isSeq() else None
                return matrix if matrix is not None else (node.string() or node.real())
        raise KeyError(" or ".join(keys))

    matrix = first(*([name] if name else []), "camera_matrix", "cameraMatrix", "K", "M1")
    width, height = size or (
        int(first("image_width", "width")),
        int(first("image_height", "height")),
    )
    try:
        coefficients = np.ravel(first("distortion_coefficients", "dist_coeffs", "D", "D1"))
    except KeyError:
        coefficients = np.zeros(0)
    model = None
    node = store.getNode("distortion_model")
    if not node.empty():
        model = _model(node.string())
    (fx, _, cx), (_, fy, cy), _ = np.asarray(matrix).tolist()
    return _camera(fx, fy, cx, cy, width, height, coefficients, model)


def _read_colmap(path: Path, size: Size | None, name: str | None) -> Camera:
    rows = [r.split() for r in path.read_text().splitlines() if r.strip() and r.strip()[0] != "#"]
    if name is not None:
        rows = [r for r in rows if r[0] == name]
    row = rows[0]
    if row[1] not in _COLMAP:
        raise ValueError(f"no COLMAP camera model '{row[1]}'. {suggest(row[1], _COLMAP)}")
    model, focals, count = _COLMAP[row[1]]
    numbers = [float(n) for n in row[4:]]
    if len(numbers) != focals + 2 + count:
        raise ValueError(
            f"{path}: {row[1]} takes {focals + 2 + count} parameters, got {len(numbers)}"
        )
    fx, fy = numbers[0], numbers[focals - 1]
    cx, cy, *rest = numbers[focals:]
    wanted = 0 if model == "pinhole" else 1 if model == "fov" else max(4, count)
    coefficients = np.array(rest + [0.0] * (wanted - count))
    return _camera(fx, fy, cx - 0.5, cy - 0.5, int(row[2]), int(row[3]), coefficients, model)


def _read_kitti(path: Path, size: Size | None, name: str | None) -> Camera:
    entries = dict(r.split(":", 1) for r in path.read_text().splitlines() if ":" in r)
    key = name or ("P_rect_00" if "P_rect_00" in entries else "P0")
    projection = np.array(entries[key].split(), np.float64).reshape(3, 4)
    if size is None:
        shape = entries.get(key.replace("P_rect_", "S_rect_")) if "rect" in key else None
        if shape is None:
            raise ValueError(
                f"{path} does not hold the image size; pass size=(width, height), e.g. (1241, 376)"
            )
        size = (int(float(shape.split()[0])), int(float(shape.split()[1])))
    return Camera(projection[0, 0], projection[1, 1], projection[0, 2], projection[1, 2], *size)


def _read_euroc(path: Path, size: Size | None, name: str | None) -> Camera:
    import yaml

    text = path.read_text()
    # OpenCV's directive is no valid YAML; EuRoC's own files carry none
    data = yaml.safe_load(text.replace("%YAML:1.0", ""))
    chain = "intrinsics" not in data
    node = data[name or "cam0"] if chain else data
    fx, fy, cx, cy = node["intrinsics"]
    width, height = size or node["resolution"]
    coefficients = node.get("distortion_coefficients", node.get("distortion_coeffs", []))
    model = _model(node["distortion_model"]) if len(coefficients) else "pinhole"
    return _camera(fx, fy, cx, cy, width, height, np.array(coefficients), model)


def _read_tum(path: Path, size: Size | None, name: str | None) -> Camera:
    key = _freiburg(path)
    if key is not None and not path.is_file():
        fx, fy, cx, cy, *rest = _TUM_RGBD[key]
        return _camera(fx, fy, cx, cy, *(size or (640, 480)), np.array(rest), None)
    lines = path.read_text().splitlines()
    fx, fy, cx, cy, omega = (float(n) for n in lines[0].split()[-5:])
    width, height = size or tuple(int(n) for n in lines[1].split())
    if max(fx, fy) < 10:  # relative to the image's size
        fx, cx, fy, cy = fx * width, cx * width - 0.5, fy * height, cy * height - 0.5
    return Camera(fx, fy, cx, cy, width, height, (omega,), "fov")


def _model(text: str) -> Model:
    if text not in _MODELS:
        raise ValueError(f"no distortion model '{text}'. {suggest(text, _MODELS)}")
    return _MODELS[text]


def _camera(
    fx: float,
    fy: float,
    cx: float,
    cy: float,
    width: int,
    height: int,
    coefficients: np.ndarray[Any, Any],
    model: Model | None,
) -> Camera:
    """A camera whose zero coefficients mean none."""
    if model in (None, "brown_conrady", "pinhole") and not coefficients.any():
        return Camera(fx, fy, cx, cy, width, height)
    return Camera(fx, fy, cx, cy, width, height, tuple(coefficients.tolist()), model)


READERS: dict[str, Callable[[Path, Size | None, str | None], Camera]] = {
    "opencv": _read_opencv,
    "colmap": _read_colmap,
    "kitti": _read_kitti,
    "euroc": _read_euroc,
    "tum": _read_tum,
}
