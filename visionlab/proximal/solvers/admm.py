"""Alternating direction method of multipliers."""

from functools import partial

import torch
from torch import Tensor

from visionlab.proximal.guarantees import (
    MARGIN,
    admm_guarantee,
    choose_weight,
    safeguard_guarantee,
)
from visionlab.proximal.iteration import Callback, Iterate, Restoration, iterate
from visionlab.proximal.network import ProximalMap
from visionlab.proximal.physics.base import Physics
from visionlab.proximal.physics.krylov import dot
from visionlab.proximal.solvers.mirror_descent import mirror_step
from visionlab.proximal.solvers.safeguard import FastStep, safeguarded_step
from visionlab.proximal.solvers.steps import (
    first_image,
    relative_change,
    solve_tolerance,
    warn_unless_covered,
)


@torch.no_grad()
def pnp_admm(
    y: Tensor,
    physics: Physics,
    net: ProximalMap,
    rho: float | None = None,
    *,
    noise: float | None = None,
    guarantee: bool = False,
    iterations: int = 100,
    tolerance: float = 1e-4,
    start: Tensor | None = None,
    callback: Callback | None = None,
) -> Restoration:
    """ADMM in the order x, u, z (Fang et al. 2024, Algorithm 2): ``h + rho R``.

    Args:
        y: measurements ``(B, ...)``, floats.
        net: one network, or ``net.at(sigma)`` of one trained over a range of noise levels.
        rho: weight of the prior and penalty of the splitting; ``(noise / net.noise_level)^2`` if
            not given.
        noise: standard deviation of the measurement noise.
        guarantee: descend provably where ``rho`` is below the theorem's range, too: a step that
            does not lower ``h + rho R`` enough is replaced by one of mirror descent.
        tolerance: stop a sample once its relative change is at most this.
        start: first image; ``physics.initial(y)`` if not given.
        callback: called with the iteration and the images.

    Returns:
        The images with their traces; `Restoration.merit` is the augmented Lagrangian, or the
        objective where steps are safeguarded.

    Raises:
        TypeError: measurements that are not floats, or a network that is no `ProximalMap`.
        ValueError: NaN in the measurements, or neither ``rho`` nor a way to derive it.
    """
    z = first_image(y, physics, net, start)
    weight = choose_weight(net, rho, noise=noise, name="rho")
    norm2 = physics.norm2(physics.image_shape(y))
    safeguard = guarantee and weight <= norm2 * (1 + MARGIN)
    verdict = (
        safeguard_guarantee(net) if safeguard else admm_guarantee(net, rho=weight, norm2=norm2)
    )
    warn_unless_covered(verdict)
    half = partial(_half_steps, physics=physics, prox=net, rho=weight, back=physics.adjoint(y))
    u = torch.zeros_like(z)
    step: partial[Iterate]
    memory: tuple[Tensor, ...]
    if safeguard:
        unit = 1 / max(weight, norm2)
        plain = partial(mirror_step, physics=physics, prox=net, weight=weight, y=y, unit=unit)
        step = partial(safeguarded_step, fast=half, plain=plain, physics=physics, weight=weight,
                       y=y, norm2=norm2)  # fmt: skip
        infinite = z.new_full((len(z),), torch.inf)
        memory = (z, z, u, infinite, torch.full_like(infinite, unit), u)
    else:
        step = partial(_admm_step, half=half, physics=physics, rho=weight, y=y)
        memory = (z, u)
    return iterate(step, memory, z, iterations=iterations, tolerance=tolerance,
                   guarantee=verdict, weight=weight, callback=callback)  # fmt: skip


def _half_steps(
    z: Tensor, u: Tensor, *, physics: Physics, prox: ProximalMap, rho: float, back: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The x-step, the u-step and the z-step: (x + u, u, z, R(z))."""
    x = physics.solve(back + rho * (z - u), rho, start=z, tolerance=solve_tolerance(z))
    u = u + x - z
    return x + u, u, *prox.prior_of_output(x + u)


def _admm_step(
    memory: tuple[Tensor, ...], *, half: FastStep, physics: Physics, rho: float, y: Tensor
) -> Iterate:
    z, u = memory
    v, u, new, prior = half(z, u)
    x = v - u
    gap = x - new
    lagrangian = physics.data_term(x, y) + rho * (prior + dot(u, gap) + 0.5 * dot(gap, gap))
    objective = physics.data_term(new, y) + rho * prior
    return Iterate(new, objective, lagrangian, relative_change(new, z), (new, u))
