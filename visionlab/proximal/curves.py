"""The learned prior along paths away from the data: noise, blur, mixing (Fang et al. 2024, Fig. 2).

A prior that has learned images must rise along each of them. All points of a path are inverted in
one batch, each level warm-started by the one before.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from visionlab.proximal.network import ProximalMap
from visionlab.proximal.prior import evaluate_prior

Path = Literal["noise", "blur", "mixing"]


@dataclass(frozen=True)
class PriorCurve:
    """R along one path.

    Attributes:
        path: its name.
        levels: noise standard deviation, blur standard deviation in pixels, or share of the other
            image; (L,).
        value: R, (L, B).
        gap: certified width of the interval above each value, (L, B).
        converged: whether the inversion was, (L, B).
    """

    path: str
    levels: tuple[float, ...]
    value: Tensor
    gap: Tensor
    converged: Tensor

    def ordered_triples(self) -> float:
        """Share of (image, i < j < k) with R rising from level i to j to k.

        Only triples whose inversions all converged count as ordered.
        """
        count, right = 0, 0
        size = len(self.levels)
        for i in range(size):
            for j in range(i + 1, size):
                for k in range(j + 1, size):
                    rising = (self.value[i] < self.value[j]) & (self.value[j] < self.value[k])
                    known = self.converged[i] & self.converged[j] & self.converged[k]
                    right += int((rising & known).sum())
                    count += rising.numel()
        if not count:
            raise ValueError(f"triples need at least 3 levels, got {size}")
        return right / count


def prior_curve(
    net: ProximalMap,
    images: Tensor,
    path: Path,
    levels: Sequence[float],
    *,
    generator: torch.Generator | None = None,
    tolerance: float = 1e-4,
) -> PriorCurve:
    """Evaluate R along a path.

    Args:
        net: a learned proximal network.
        images: (B, C, H, W); ``"mixing"`` mixes each with the next one.
        path: ``"noise"`` adds one fixed Gaussian noise image times the level; ``"blur"`` convolves
            with a Gaussian; ``"mixing"`` takes (1 - level) image + level next image.
        levels: rising; 0 is the image itself. Mixing is meant for levels up to 0.5.
        generator: of the noise.
        tolerance: of the inversion.

    Raises:
        ValueError: no such path, levels that do not rise, or one image alone to mix.
    """
    if path not in ("noise", "blur", "mixing"):
        raise ValueError(f"path is 'noise', 'blur' or 'mixing', got {path!r}")
    if list(levels) != sorted(set(levels)) or min(levels, default=-1) < 0:
        raise ValueError(f"levels must rise from 0 or above, got {list(levels)}")
    if path == "mixing" and len(images) < 2:
        raise ValueError("mixing needs at least two images")
    if path == "blur" and images.ndim != 4:
        raise ValueError(f"blur needs images (B, C, H, W), got shape {tuple(images.shape)}")
    move = _mover(images, path, generator)
    results, start = [], None
    for level in levels:
        result = evaluate_prior(net, move(level), start=start, tolerance=tolerance)
        start = result.y
        results.append(result)
    return PriorCurve(
        path,
        tuple(levels),
        torch.stack([r.value for r in results]),
        torch.stack([r.gap for r in results]),
        torch.stack([r.converged for r in results]),
    )


def _mover(
    images: Tensor, path: str, generator: torch.Generator | None
) -> Callable[[float], Tensor]:
    if path == "noise":
        noise = torch.randn(images.shape, generator=generator, dtype=torch.float64).to(images)
        return lambda level: images + level * noise
    if path == "mixing":
        other = images.roll(-1, 0)
        return lambda level: torch.lerp(images, other, level)
    return lambda level: gaussian_smoothing(images, level)


def gaussian_smoothing(images: Tensor, sigma: float) -> Tensor:
    """Gaussian blur with standard deviation ``sigma`` in pixels, reflected at the border."""
    if sigma == 0:
        return images
    reach = min(max(1, round(4 * sigma)), *(n - 1 for n in images.shape[2:]))
    grid = torch.arange(-reach, reach + 1, dtype=images.dtype, device=images.device)
    weights = torch.exp(-0.5 * (grid / sigma) ** 2)
    weights = weights / weights.sum()
    batch, channels = images.shape[:2]
    single = images.reshape(batch * channels, 1, *images.shape[2:])
    single = F.pad(single, (reach, reach, reach, reach), mode="reflect")
    single = F.conv2d(single, weights.view(1, 1, 1, -1))
    return F.conv2d(single, weights.view(1, 1, -1, 1)).reshape(images.shape)
