"""Inversion of a learned prox, y = f^-1(x), for a whole batch by Newton's method.

f = grad psi with psi convex, so y minimises phi(y) = psi(y) - <x, y>, a convex problem. Each Newton
system H d = x - f(y), H the Jacobian of f, is solved inexactly by conjugate gradients; H is
symmetric, so H u is a vector-Jacobian product and one graph serves all of them. Every sample has
its own step lengths and its own end, and leaves the batch when it is done.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from visionlab.proximal.network import ProximalMap


@dataclass(frozen=True)
class Inversion:
    """Result of `invert`.

    Attributes:
        y: points with f(y) close to x, of the shape of x.
        residual: ||f(y) - x|| per sample, (B,).
        converged: residual <= tolerance, (B,) bool.
        iterations: Newton steps taken per sample, (B,).
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
        max_iterations: Newton steps.
        cg_iterations: conjugate gradient steps per Newton step.

    Returns:
        The last iterate of each sample. A point off the range of f does not converge, and says so.
    """
    y = (x if start is None else start).detach().clone()
    residual = torch.full((len(x),), torch.inf, dtype=x.dtype, device=x.device)
    iterations = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    active = torch.arange(len(x), device=x.device)
    with torch.no_grad():
        for step in range(max_iterations + 1):
            at = y[active]
            f, hessian, value = torch.func.vjp(_prox_and_value(net), at, has_aux=True)  # type: ignore[misc]
            gradient = f - x[active]
            residual[active] = _norm(gradient)
            going = residual[active] > tolerance
            if step == max_iterations or not bool(going.any()):
                break
            direction = _newton_direction(hessian, gradient, going, cg_iterations)
            phi = value - _dot(x[active], at)
            t = _line_search(net, x[active], at, direction, phi, gradient)
            moved = going & (t > 0)
            y[active] = at + _spread(torch.where(moved, t, 0.0), at) * direction
            iterations[active] += moved
            active = active[moved]
            if not len(active):
                break
    return Inversion(y, residual, residual <= tolerance, iterations)


def _prox_and_value(net: ProximalMap):  # type: ignore[no-untyped-def]
    def call(v: Tensor) -> tuple[Tensor, Tensor]:
        value, f = net.value_and_prox(v)
        return f, value

    return call


def _newton_direction(hessian, gradient: Tensor, going: Tensor, steps: int) -> Tensor:  # type: ignore[no-untyped-def]
    """Truncated conjugate gradients on H d = -gradient, all samples at once."""
    d = torch.zeros_like(gradient)
    r = -gradient
    p = r
    rr = _dot(r, r)
    # superlinear forcing term: solve more exactly as the residual falls
    goal = rr * torch.clamp(rr.sqrt() / (1 + _norm(gradient)), max=0.25).square()
    going = going.clone()
    for _ in range(steps):
        hp = hessian(p)[0]
        curvature = _dot(p, hp)
        going &= curvature > 0
        a = torch.where(going, rr / curvature.clamp_min(torch.finfo(rr.dtype).tiny), 0.0)
        d = d + _spread(a, d) * p
        r = r - _spread(a, r) * hp
        new = _dot(r, r)
        going &= new > goal
        if not bool(going.any()):
            break
        p = r + _spread(new / rr.clamp_min(torch.finfo(rr.dtype).tiny), p) * p
        rr = new
    return d


def _line_search(
    net: ProximalMap, x: Tensor, y: Tensor, d: Tensor, phi: Tensor, gradient: Tensor
) -> Tensor:
    """Step lengths (B,), halved until phi falls and its slope has not turned steep; 0 if never."""
    slope = _dot(gradient, d)
    # phi is flat to rounding near the solution: there its slope, which is not, decides
    slack = 10 * torch.finfo(phi.dtype).eps * (1 + phi.abs() + _dot(x, y).abs())
    t = torch.ones_like(phi)
    for _ in range(30):
        trial = y + _spread(t, y) * d
        value, f = net.value_and_prox(trial)
        falls = value - _dot(x, trial) <= phi + slack
        accepted = falls & (_dot(f - x, d) <= -0.5 * slope)
        if bool(accepted.all()):
            return t
        t = torch.where(accepted, t, 0.5 * t)
    return torch.where(accepted, t, 0.0)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).flatten(1).sum(1)


def _norm(a: Tensor) -> Tensor:
    return a.flatten(1).norm(dim=1)


def _spread(per_sample: Tensor, like: Tensor) -> Tensor:
    return per_sample.reshape(-1, *(1,) * (like.dim() - 1))
