"""Batched limited-memory BFGS on the convex function whose minimiser inverts a prox.

Liu and Nocedal, Math. Prog. 45 (1989); the two-loop recursion of Nocedal and Wright, Alg. 7.4. The
first inverse Hessian is diagonal: the Jacobian of a denoiser is nearly so, small where it smooths
and near 1 where it lets pass, and Hutchinson's estimator reads the diagonal off a few products.
Each iteration costs one evaluation of f, as a rule, and every sample leaves the batch when done.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from visionlab.proximal.network import ProximalMap
from visionlab.proximal.physics.krylov import dot, per_sample


@dataclass
class QuasiNewtonState:
    """What is known of the samples that are still under way; each entry is (b, ...).

    Attributes:
        index: their places in the batch.
        x: targets.
        y: iterates.
        gradient: f(y) - x.
        phi: psi(y) - <x, y>.
        diagonal: of the Jacobian of f, estimated.
        pairs: last steps s, changes of the gradient z, and 1 / <s, z> (0 where not positive).
    """

    index: Tensor
    x: Tensor
    y: Tensor
    gradient: Tensor
    phi: Tensor
    diagonal: Tensor
    pairs: list[tuple[Tensor, Tensor, Tensor]] = field(default_factory=list)

    def keep(self, which: Tensor) -> None:
        """Drop the samples where ``which`` is False."""
        for name in ("index", "x", "y", "gradient", "phi", "diagonal"):
            setattr(self, name, getattr(self, name)[which])
        self.pairs = [(s[which], z[which], r[which]) for s, z, r in self.pairs]

    def direction(self) -> Tensor:
        """Minus the inverse Hessian estimate times the gradient."""
        q, shares = self.gradient, []
        for s, z, r in reversed(self.pairs):
            share = r * dot(s, q)
            q = q - per_sample(share, q) * z
            shares.append(share)
        q = q / self.diagonal
        if self.pairs:
            _, z, r = self.pairs[-1]
            size = dot(z, z / self.diagonal) * r
            q = q / per_sample(torch.where(size > 0, size, 1.0), q)
        for (s, z, r), share in zip(self.pairs, reversed(shares), strict=True):
            q = q + per_sample(share - r * dot(z, q), q) * s
        return -q


def quasi_newton(
    net: ProximalMap,
    x: Tensor,
    start: Tensor,
    *,
    tolerance: float,
    max_iterations: int,
    memory: int = 20,
    probes: int = 2,
) -> tuple[Tensor, Tensor, Tensor]:
    """Solve f(y) = x for each sample, or come near.

    Args:
        net: f; its parameters must have the dtype of ``x``.
        x: (B, ...) points to invert.
        start: of the shape of ``x``.
        tolerance: on ||f(y) - x||.
        max_iterations: of each sample; it also ends where rounding lets phi fall no more.
        memory: pairs kept.
        probes: Jacobian products that estimate the diagonal.

    Returns:
        y, the residuals (B,) and the iterations used (B,).
    """
    with torch.no_grad():
        y, iterations = start.clone(), torch.zeros(len(x), dtype=torch.int64, device=x.device)
        value, f = net.value_and_prox(start)
        residual = residual_norm(f - x)
        everything = torch.arange(len(x), device=x.device)
        phi = value - dot(x, start)
        now = QuasiNewtonState(
            everything, x, start, f - x, phi, jacobian_diagonal(net, start, probes)
        )
        now.keep(residual > tolerance)
        for _ in range(max_iterations):
            if not len(now.index):
                break
            moved = _step(net, now, memory)
            now.keep(moved)
            y[now.index], residual[now.index] = now.y, residual_norm(now.gradient)
            iterations[now.index] += 1
            now.keep(residual[now.index] > tolerance)
    return y, residual, iterations


def jacobian_diagonal(net: ProximalMap, y: Tensor, probes: int) -> Tensor:
    """Hutchinson's estimate of the diagonal of f's Jacobian, positive.

    The mean of u * J u over random signs u, then over 3 x 3 neighbours (3 in a signal), whose
    entries are alike; a floor keeps it positive. Signs come from a fixed generator.
    """
    generator = torch.Generator().manual_seed(0)
    product = torch.func.vjp(net.forward, y)[1]  # J is symmetric
    total = torch.zeros_like(y)
    # one sign image for all samples: a result must not depend on the neighbours in the batch
    shape = (1, *y.shape[1:])
    for _ in range(probes):
        signs = torch.randint(0, 2, shape, generator=generator).mul(2).sub(1).to(y).expand_as(y)
        total += signs * product(signs)[0].detach()
    pools = {3: F.avg_pool1d, 4: F.avg_pool2d}
    if y.dim() in pools and min(y.shape[2:]) > 1:
        total = pools[y.dim()](total, 3, 1, 1, count_include_pad=False)
    return (total / probes).clamp_min(max(net.curvature, 1e-3))


def _step(net: ProximalMap, now: QuasiNewtonState, memory: int) -> Tensor:
    """One step of every sample, in place; where no step lowers phi: False, and no step."""
    d = now.direction()
    t, y, f, phi = line_search(net, now.x, now.y, d, now.phi, now.gradient)
    s, gradient = y - now.y, f - now.x
    z = gradient - now.gradient
    product = dot(s, z)
    usable = product > 1e-10 * dot(z, z)
    now.pairs.append((s, z, torch.where(usable, 1 / product, 0.0)))
    del now.pairs[:-memory]
    now.y, now.gradient, now.phi = y, gradient, phi
    return t > 0


def line_search(
    net: ProximalMap, x: Tensor, y: Tensor, d: Tensor, phi: Tensor, gradient: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Step lengths, halved until phi falls and its slope has not turned steep.

    Only the samples that were refused are evaluated again.

    Returns:
        t (B,), 0 where none was accepted; the points y + t d; f and phi there.
    """
    slope = dot(gradient, d)
    # phi is flat to rounding near the solution: there its slope, which is not, decides
    slack = 10 * torch.finfo(phi.dtype).eps * (1 + phi.abs() + dot(x, y).abs())
    t = torch.ones_like(phi)
    trial = y + d
    value, f = net.value_and_prox(trial)
    reached = value - dot(x, trial)
    for halvings in range(30):
        falls = reached <= phi + 1e-4 * t * slope + slack
        refused = ~(falls & (dot(f - x, d) <= -0.9 * slope)) & (t > 0)
        if not bool(refused.any()):
            break
        t = torch.where(refused, 0.5 * t if halvings < 29 else 0.0, t)
        trial[refused] = (y + per_sample(t, y) * d)[refused]
        value, f[refused] = net.value_and_prox(trial[refused])
        reached[refused] = value - dot(x[refused], trial[refused])
    return t, trial, f, reached


def residual_norm(a: Tensor) -> Tensor:
    """Euclidean norm per sample, (B,)."""
    return a.flatten(1).norm(dim=1)
