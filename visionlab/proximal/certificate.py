"""Evidence that a map is a proximal operator: symmetry, monotonicity, curvature, weight signs.

A C1 map f is the prox of some function iff it is the gradient of a convex potential (Gribonval and
Nikolova 2020): iff its Jacobian is symmetric positive semidefinite everywhere. The structure of the
network is the proof; this measures it where the data are, and finds the maps that only look alike.
"""

import copy
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from visionlab.backbones.nonnegative import NonNegativeWeight
from visionlab.proximal.physics.base import check_images

# relative difference between a derivative and a central difference that curvature may cause
_UNTRUTH = 0.1

Map = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Certificate:
    """What `certify` measured; the worst case over samples and probes.

    Attributes:
        symmetry: ||J u - J^T u|| / ||J u||, 0 for a gradient.
        monotonicity: smallest <f(a) - f(b), a - b> / ||a - b||^2 over pairs of points.
        minimum_curvature: smallest eigenvalue of the symmetric part of J that Lanczos found.
        maximum_curvature: largest one, a lower estimate of the Lipschitz constant of f.
        guaranteed_curvature: what the structure promises (2 alpha), 0 for a foreign map.
        smallest_weight: smallest constrained weight, None for a map that has none.
        tolerance: relative error that rounding may cause.
        failures: what does not hold and by how much; empty if all does.
    """

    symmetry: float
    monotonicity: float
    minimum_curvature: float
    maximum_curvature: float
    guaranteed_curvature: float
    smallest_weight: float | None
    tolerance: float
    failures: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """No check failed."""
        return not self.failures

    def __str__(self) -> str:
        """A report, one line per check."""
        weight = (
            "none constrained" if self.smallest_weight is None else f"{self.smallest_weight:.3g}"
        )
        lines = [
            f"symmetry            {self.symmetry:.3g}   (0 for a gradient)",
            f"monotonicity        {self.monotonicity:.3g}   (>= 2 alpha)",
            f"minimum curvature   {self.minimum_curvature:.3g}   (>= 2 alpha = "
            f"{self.guaranteed_curvature:.3g})",
            f"maximum curvature   {self.maximum_curvature:.3g}   (a Lipschitz estimate)",
            f"smallest weight     {weight}",
            "HOLDS" if self.holds else "FAILS",
        ]
        return "\n".join([*lines, *(f"  - {f}" for f in self.failures)])


def certify(
    net: nn.Module | Map,
    x: Tensor,
    *,
    probes: int = 4,
    lanczos_steps: int = 20,
    generator: torch.Generator | None = None,
    tolerance: float | None = None,
) -> Certificate:
    """Check that ``net`` acts as a proximal operator around the points ``x``.

    All is computed in the precision of ``x``; give float64 points (the network is copied to
    float64) for a verdict that rounding cannot blur.

    Args:
        net: any map of images to images of the same shape that torch can differentiate.
        x: (B, ...) points, the data that matter; integer images are refused.
        probes: random directions per point.
        lanczos_steps: Krylov dimension of the eigenvalue estimate.
        generator: of the probes; a fixed one on the CPU if None.
        tolerance: relative error allowed; 1e-10 in float64, 1e-3 in float32.

    Raises:
        TypeError: points that are no floats, or what is no map.
        ValueError: points that are not finite, a map that changes the shape, or nothing to probe.
    """
    if probes < 1 or lanczos_steps < 1:
        raise ValueError(
            f"probes and lanczos_steps are at least 1, got {probes} and {lanczos_steps}"
        )
    f, weights = _prepare(net, x)
    generator = generator or torch.Generator().manual_seed(0)
    if tolerance is None:
        tolerance = 1e-10 if x.dtype == torch.float64 else 1e-3
    _check_shape(f, x)
    low, high = _spectrum(f, x, lanczos_steps, generator)
    symmetry = max(_asymmetry(f, x, _noise(x, generator)) for _ in range(probes))
    monotonicity = min(_slope(f, x, generator, k) for k in range(probes))
    floor = float(getattr(net, "curvature", 0.0))
    smallest = min((float(w.min()) for w in weights), default=None)
    failures = _failures(symmetry, monotonicity, low, high, floor, smallest, tolerance)
    untrue = _untruth(f, x, _noise(x, generator))
    if not untrue <= _UNTRUTH:
        failures.append(
            f"nothing is proved: the derivative that torch finds is {untrue:.3g} away from that of "
            "the map, as where a part of it is detached or runs without gradients"
        )
    return Certificate(
        symmetry, monotonicity, low, high, floor, smallest, tolerance, tuple(failures)
    )


def _prepare(net: nn.Module | Map, x: Tensor) -> tuple[Map, list[Tensor]]:
    check_images(x, name="points", ndim=None)
    if not callable(net):
        raise TypeError(f"expected a map of images, got {type(net).__name__}")
    if not isinstance(net, nn.Module):
        return net, []
    copied = copy.deepcopy(net).to(x.dtype).eval().requires_grad_(False)
    weights = [m().detach() for m in copied.modules() if isinstance(m, NonNegativeWeight)]
    return copied, weights


def _check_shape(f: Map, x: Tensor) -> None:
    with torch.no_grad():
        shape = f(x).shape
    if shape != x.shape:
        raise ValueError(
            f"a prox keeps the shape; this map sends {tuple(x.shape)} to {tuple(shape)}"
        )


def _noise(x: Tensor, generator: torch.Generator) -> Tensor:
    drawn = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    return drawn.to(x)


def _forward_product(f: Map, x: Tensor, u: Tensor) -> Tensor:
    with warnings.catch_warnings():
        # torch's own: its first forward-mode product scripts some decompositions
        warnings.filterwarnings("ignore", r".*torch\.jit\.script.*", FutureWarning)
        return torch.func.jvp(f, (x,), (u,))[1].detach()


def _transposed_product(f: Map, x: Tensor, u: Tensor) -> Tensor:
    return torch.func.vjp(f, x)[1](u)[0].detach()


def _norm(x: Tensor) -> Tensor:
    return x.flatten(1).norm(dim=1)


def _asymmetry(f: Map, x: Tensor, u: Tensor) -> float:
    forward = _forward_product(f, x, u)
    difference = _norm(forward - _transposed_product(f, x, u))
    return float((difference / _norm(forward).clamp_min(torch.finfo(x.dtype).tiny)).max())


def _untruth(f: Map, x: Tensor, u: Tensor) -> float:
    """Relative difference between torch's J u and a central difference of f."""
    step = float(x.abs().max().clamp_min(1)) * (1e-5 if x.dtype == torch.float64 else 1e-3)
    with torch.no_grad():
        measured = (f(x + step * u) - f(x - step * u)) / (2 * step)
    found = _forward_product(f, x, u)
    size = _norm(measured).maximum(_norm(found)).clamp_min(torch.finfo(x.dtype).tiny)
    return float((_norm(measured - found) / size).max())


def _slope(f: Map, x: Tensor, generator: torch.Generator, k: int) -> float:
    """Monotonicity between ``x`` and points at distance scale 2^-k around and among it."""
    away = _noise(x, generator) * 0.5 ** (2 * k)
    if k % 2 and len(x) > 1:
        away = away + (x.roll(1, 0) - x)
    with torch.no_grad():
        difference = f(x + away) - f(x)
    along = (difference * away).flatten(1).sum(1)
    return float((along / _norm(away).square()).min())


def _spectrum(f: Map, x: Tensor, steps: int, generator: torch.Generator) -> tuple[float, float]:
    """Extreme Ritz values of (J + J^T) / 2: Lanczos per sample, fully reorthogonalised."""
    steps = min(steps, x[0].numel())
    q = _noise(x, generator).flatten(1)
    q = q / q.norm(dim=1, keepdim=True)
    basis, diagonal, off = [q], [], []
    for _ in range(steps):
        u = basis[-1].reshape(x.shape)
        w = 0.5 * (_forward_product(f, x, u) + _transposed_product(f, x, u)).flatten(1)
        diagonal.append((w * basis[-1]).sum(1))
        for _ in range(2):
            for b in basis:
                w = w - (w * b).sum(1, keepdim=True) * b
        norm = w.norm(dim=1)
        off.append(norm)
        # an exhausted Krylov space: the zero vector adds a zero row that is cut off below
        basis.append(w / norm.clamp_min(torch.finfo(x.dtype).tiny)[:, None])
        if float(norm.min()) <= 1e-12 * float(torch.stack(diagonal).abs().max()):
            break
    matrix = torch.diag_embed(torch.stack(diagonal, 1))
    if len(off) > 1:
        side = torch.diag_embed(torch.stack(off[:-1], 1), offset=1)
        matrix = matrix + side + side.mT
    if not bool(torch.isfinite(matrix).all()):
        return math.nan, math.nan
    values = torch.linalg.eigvalsh(matrix.double())
    return float(values.min()), float(values.max())


def _failures(
    symmetry: float,
    monotonicity: float,
    low: float,
    high: float,
    floor: float,
    smallest: float | None,
    tolerance: float,
) -> list[str]:
    scale = max(abs(high), abs(low))
    failures = []
    if not symmetry <= tolerance:
        failures.append(
            f"not a gradient: the Jacobian is asymmetric by {symmetry:.3g} of its size "
            f"(allowed {tolerance:.1g})"
        )
    for name, value in (("monotonicity", monotonicity), ("curvature", low)):
        if not value >= floor - tolerance * scale:
            failures.append(
                f"not convex: {name} {value:.3g} is below {floor:.3g} by {floor - value:.3g}"
            )
    if smallest is not None and not smallest >= 0:
        failures.append(f"a weight that must be nonnegative is {smallest:.3g}")
    return failures
