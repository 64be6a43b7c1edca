"""Pictures and clips that the rotation tests make for themselves."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest


@pytest.fixture(scope="session")
def texture() -> np.ndarray:
    """(480, 640) uint8: smooth random structure at several scales, fit for tracking."""
    rng = np.random.default_rng(7)
    total = np.zeros((480, 640), np.float32)
    for cells, weight in ((6, 3.0), (16, 2.0), (40, 1.5), (100, 1.0)):
        coarse = rng.normal(size=(cells * 3 // 4, cells)).astype(np.float32)
        total += weight * cv2.resize(coarse, (640, 480), interpolation=cv2.INTER_CUBIC)
    low, high = np.quantile(total, [0.01, 0.99])
    return np.clip((total - low) / (high - low) * 255, 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def clip(texture: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A written sequence of the format ``csv``: 12 frames of 240x136, exact rotation."""
    from visionlab.rotation.sequences import VirtualCamera

    camera = VirtualCamera(texture, size=(240, 136), focal=210.0, frames=12, seed=3, peak_deg=3.0)
    return camera.write(tmp_path_factory.mktemp("clip") / "turn")


@pytest.fixture(scope="session")
def write_video() -> Callable[..., Path]:
    """``write_video(path, frames, fps=25)`` for tests that need a video file."""
    return _write_video


def _write_video(path: Path, frames: list[np.ndarray], *, fps: float = 25.0) -> Path:
    """A lossless AVI of grey frames."""
    height, width = frames[0].shape[:2]
    code = cv2.VideoWriter.fourcc(*"FFV1")
    writer = cv2.VideoWriter(str(path), code, fps, (width, height))
    assert writer.isOpened()
    for frame in frames:
        writer.write(cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR) if frame.ndim == 2 else frame)
    writer.release()
    return path


@pytest.fixture
def nvrtc_here():
    """Skips where torch brings no NVRTC."""
    from visionlab.rotation import nvrtc

    try:
        nvrtc.nvrtc_library()
    except nvrtc.CudaError as error:
        pytest.skip(f"no NVRTC: {error}")
