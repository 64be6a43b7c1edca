"""The learned prior R of a learned prox f = prox_R, at any point (Fang et al. 2024, Eq. 2.3).

With y = f^-1(x):  R(x) = <x, y> - ||x||^2 / 2 - psi(y).

For *any* y the same expression is a lower bound of R(x), because psi* is a supremum; and since psi
is 2 alpha strongly convex, R(x) lies at most ||f(y) - x||^2 / (4 alpha) above it. So an inexact
inversion still yields a certified interval. R is defined up to a constant: compare values, do not
read them.
"""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from visionlab.proximal.inversion import invert
from visionlab.proximal.network import ProximalMap
from visionlab.proximal.physics.base import check_images


@dataclass(frozen=True)
class PriorResult:
    """R at a batch of points.

    Attributes:
        value: estimate of R(x), (B,): the lower bound, which is exact where ``gap`` is 0.
        lower_bound: R(x) is at least this, (B,).
        residual: ||f(y) - x||, (B,).
        gap: R(x) is at most ``lower_bound + gap``, (B,); infinite without strong convexity.
        converged: residual within the tolerance, (B,) bool. Where False, x is off the range of f
            or nearly so, and only the bounds mean anything.
        y: f^-1(x), of the shape of x.
    """

    value: Tensor
    lower_bound: Tensor
    residual: Tensor
    gap: Tensor
    converged: Tensor
    y: Tensor


def evaluate_prior(
    net: ProximalMap,
    x: Tensor,
    *,
    start: Tensor | None = None,
    tolerance: float = 1e-4,
    max_iterations: int = 50,
    cg_iterations: int = 100,
) -> PriorResult:
    """R(x) by inverting the network, for a whole batch.

    Computed in the precision of ``x``: give float64 points where alpha is tiny.

    Args:
        net: a learned proximal network; `ProximalNetwork.at` for a conditioned one.
        x: (B, ...) floating point images.
        start: warm start for y, for instance the result at a neighbouring x.
        tolerance: on ||f(y) - x||.
        max_iterations: of each kind, see `invert`.
        cg_iterations: conjugate gradient steps per Newton step.

    Raises:
        TypeError: integer images, or a network that is no `ProximalMap`.
        ValueError: images that are not finite, or a start of another shape.

    Example:
        >>> from visionlab.proximal import LearnedProximalNetwork
        >>> net = LearnedProximalNetwork(1, 8, alpha=0.01)
        >>> evaluate_prior(net, torch.rand(2, 1, 16, 16)).value.shape
        torch.Size([2])
    """
    if not isinstance(net, ProximalMap):
        raise TypeError(
            f"a prior needs a potential: expected a ProximalMap, got {type(net).__name__}; wrap a "
            "potential in ProximalNetwork"
        )
    check_images(x, name="x", ndim=None)
    if start is not None and start.shape != x.shape:
        raise ValueError(f"start has shape {tuple(start.shape)}, x {tuple(x.shape)}")
    net = in_precision(net, x.dtype)
    found = invert(
        net,
        x,
        start=start,
        tolerance=tolerance,
        max_iterations=max_iterations,
        cg_iterations=cg_iterations,
    )
    with torch.no_grad():
        psi = net.potential(found.y)
    flat_x = x.flatten(1)
    bound = (flat_x * found.y.flatten(1)).sum(1) - 0.5 * flat_x.square().sum(1) - psi
    gap = torch.full_like(bound, torch.inf)
    if net.curvature > 0:
        gap = found.residual.square() / (2 * net.curvature)
    return PriorResult(bound, bound, found.residual, gap, found.converged, found.y)


def in_precision(net: ProximalMap, dtype: torch.dtype) -> ProximalMap:
    """``net`` if its parameters have this dtype, else a copy that has."""
    if all(p.dtype == dtype for p in net.parameters()):
        return net
    return copy.deepcopy(net).to(dtype)
