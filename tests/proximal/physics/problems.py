"""Every measurement operator at a small size, for tests that hold for all of them."""

from collections.abc import Callable

import torch

from visionlab.proximal.physics import (
    CircularBlur,
    CompressedSensing,
    FunctionOperator,
    Inpainting,
    MatrixOperator,
    Physics,
    SuperResolution,
    Tomography,
    ValidBlur,
    gaussian_blur,
)

CHANNELS, HEIGHT, WIDTH = 2, 18, 18
SHAPE = (CHANNELS, HEIGHT, WIDTH)


def random_kernel() -> torch.Tensor:
    """Neither symmetric nor non-negative."""
    return torch.randn(5, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64) / 4


def random_matrix() -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(100, CHANNELS * HEIGHT * WIDTH, generator=generator, dtype=torch.float64) / 9


def running_sum(x: torch.Tensor) -> torch.Tensor:
    return x.cumsum(-1)[..., ::2] / 4


PROBLEMS: dict[str, Callable[[], Physics]] = {
    "gaussian_circular": lambda: gaussian_blur(1.0),
    "gaussian_valid": lambda: gaussian_blur(1.0, boundary="valid"),
    "kernel_circular": lambda: CircularBlur(random_kernel()),
    "kernel_valid": lambda: ValidBlur(random_kernel()),
    "compressed_sensing_1/4": lambda: CompressedSensing(SHAPE, ratio=1 / 4),
    "compressed_sensing_1/16": lambda: CompressedSensing(SHAPE, ratio=1 / 16, seed=3),
    "tomography": lambda: Tomography(HEIGHT, angles=7),
    "tomography_narrow": lambda: Tomography(HEIGHT, angles=4, detectors=9, normalize=False),
    "inpainting": lambda: Inpainting.random(SHAPE, keep=0.5),
    "super_resolution_2": lambda: SuperResolution(2),
    "super_resolution_3": lambda: SuperResolution(3, random_kernel()),
    "matrix": lambda: MatrixOperator(random_matrix(), SHAPE),
    "function": lambda: FunctionOperator(running_sum, SHAPE),
}
