"""Inversion of a learned prox, y = f^-1(x), for a whole batch.

f = grad psi with psi convex, so y minimises phi(y) = psi(y) - <x, y>, a convex problem. Batched
L-BFGS solves it where psi is well curved (`visionlab.proximal.quasi_newton`). What is left, as
with a tiny alpha, gets Newton's method: each system H d = x - f(y), H the Jacobian of f, is solved
inexactly by conjugate gradients; H is symmetric, so H u is a vector-Jacobian product
and one graph serves all of them. Every sample has its own step lengths and its own end, and leaves
the batch when it is done.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from visionlab.proximal.network import ProximalMap
from visionlab.proximal.physics.krylov import dot, per_sample
from visionlab.proximal.quasi_newton import line_search, quasi_newton, residual_norm


@dataclass(frozen=True)
class Inversion:
    """Result of `invert`.

    Attributes:
        y: points with f(y) close to x, of the shape of x.
        residual: ||f(y) - x|| per sample, (B,).
        converged: residual <= tolerance, (B,) bool.
        iterations: steps taken per sample, of both kinds, (B,).
    """

    y: Tensor
    residual: Tensor
    converged: Tensor
    iterations: Tensor


def invert(
    net: ProximalMap,
    x: Tensor,
    *,
    start: Tensor | None = None,
    tolerance: float = 1e-4,
    max_iterations: int = 50,
    cg_iterations: int = 100,
) -> Inversion:
    """Solve f(y) = x for each sample.

    Args:
        net: f; its parameters must have the dtype of ``x``.
        x: (B, ...) points to invert.
        start: where to begin; ``x`` itself if None.
        tolerance: on the Euclidean norm ||f(y) - x||.
        max_iterations: L-BFGS steps, and then Newton steps.
        cg_iterations: conjugate gradient steps per Newton step.

    Returns:
        The last iterate of each sample. A point off the range of f does not converge, and says so.
    """
    begin = (x if start is None else start).detach()
    y, residual, iterations = quasi_newton(
        net, x, begin, tolerance=tolerance, max_iterations=max_iterations
    )
    left = (residual > tolerance).nonzero()[:, 0]
    if len(left):
        y[left], residual[left], newton_steps = _newton(
            net,
            x[left],
            y[left],
            tolerance=tolerance,
            max_iterations=max_iterations,
            cg_iterations=cg_iterations,
        )
        iterations[left] += newton_steps
    return Inversion(y, residual, residual <= tolerance, iterations)


def _newton(
    net: ProximalMap,
    x: Tensor,
    start: Tensor,
    *,
    tolerance: float,
    max_iterations: int,
    cg_iterations: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """y, residuals and steps, as `quasi_newton`."""
    y = start.clone()
    residual = torch.full((len(x),), torch.inf, dtype=x.dtype, device=x.device)
    iterations = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    active = torch.arange(len(x), device=x.device)
    with torch.no_grad():
        for step in range(max_iterations + 1):
            at = y[active]
            f, hessian, value = torch.func.vjp(_prox_and_value(net), at, has_aux=True)  # type: ignore[misc]
            gradient = f - x[active]
            residual[active] = residual_norm(gradient)
            going = residual[active] > tolerance
            if step == max_iterations or not bool(going.any()):
                break
            direction = _newton_direction(hessian, gradient, going, cg_iterations)
            phi = value - dot(x[active], at)
            t, *_ = line_search(net, x[active], at, direction, phi, gradient)
            moved = going & (t > 0)
            y[active] = at + per_sample(torch.where(moved, t, 0.0), at) * direction
            iterations[active] += moved
            active = active[moved]
            if not len(active):
                break
    return y, residual, iterations


def _prox_and_value(net: ProximalMap) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    def call(v: Tensor) -> tuple[Tensor, Tensor]:
        value, f = net.value_and_prox(v)
        return f, value

    return call


def _newton_direction(
    hessian: Callable[[Tensor], tuple[Tensor, ...]],
    gradient: Tensor,
    going: Tensor,
    steps: int,
) -> Tensor:
    """Truncated conjugate gradients on H d = -gradient, all samples at once."""
    d = torch.zeros_like(gradient)
    r = -gradient
    p = r
    rr, tiny = dot(r, r), torch.finfo(r.dtype).tiny
    # superlinear forcing term: solve more exactly as the residual falls
    size = residual_norm(r)
    goal = size * torch.clamp(size / (1 + size), max=0.25)
    going = going.clone()
    for _ in range(steps):
        hp = hessian(p)[0]
        curvature = dot(p, hp)
        going &= curvature > 0
        a = torch.where(going, rr / curvature.clamp_min(tiny), 0.0)
        d = d + per_sample(a, d) * p
        r = r - per_sample(a, r) * hp
        going &= residual_norm(r) > goal
        if not bool(going.any()):
            break
        new = dot(r, r)
        p = r + per_sample(new / rr.clamp_min(tiny), p) * p
        rr = new
    return d
