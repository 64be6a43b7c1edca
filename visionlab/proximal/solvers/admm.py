"""Alternating direction method of multipliers."""

from functools import partial

import torch
from torch import Tensor

from visionlab.proximal.guarantees import (
    MARGIN,
    admm_guarantee,
    choose_weight,
)
from visionlab.proximal.iteration import Callback, Iterate, Restoration, iterate
from visionlab.proximal.network import ProximalMap
from visionlab.proximal.physics.base import Physics
from visionlab.proximal.physics.krylov import dot
from visionlab.proximal.solvers.steps import (
    first_image,
    relative_change,
    share_of_step,
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
        guarantee: keep the weight ``rho`` and satisfy the theorem: the penalty is raised above
            ``||A||^2`` and the network relaxed by ``tau = rho / penalty`` to the same effect.
        tolerance: stop a sample once its relative change is at most this.
        start: first image; ``physics.initial(y)`` if not given.
        callback: called with the iteration and the images.

    Returns:
        The images with their traces; `Restoration.merit` is the augmented Lagrangian.

    Raises:
        TypeError: measurements that are not floats, or a network that is no `ProximalMap`.
        ValueError: NaN in the measurements, or neither ``rho`` nor a way to derive it.
    """
    x = first_image(y, physics, net, start)
    weight = choose_weight(net, rho, noise=noise, name="rho")
    norm2 = physics.norm2(physics.image_shape(y))
    penalty, prox = weight, net
    if guarantee and weight <= norm2 * (1 + MARGIN):
        penalty = norm2 * (1 + MARGIN)
        prox = net.relaxed(weight / penalty)
    verdict = admm_guarantee(net, rho=penalty, norm2=norm2)
    warn_unless_covered(verdict)
    step = partial(
        _admm_step, physics=physics, prox=prox, rho=penalty, y=y, back=physics.adjoint(y)
    )
    return iterate(step, (x, torch.zeros_like(x), x), x, iterations=iterations, tolerance=tolerance,
                   guarantee=verdict, weight=weight, callback=callback)  # fmt: skip


def _admm_step(
    memory: tuple[Tensor, ...],
    *,
    physics: Physics,
    prox: ProximalMap,
    rho: float,
    y: Tensor,
    back: Tensor,
) -> Iterate:
    x, u, z = memory
    x = physics.solve(back + rho * (z - u), rho, start=x, tolerance=solve_tolerance(x))
    u = u + x - z
    new, prior = prox.prior_of_output(x + u)
    lagrangian = (
        physics.data_term(x, y)
        + rho * prior
        + rho * (dot(u, x - new) + 0.5 * (x - new).flatten(1).square().sum(1))
    )
    objective = physics.data_term(new, y) + rho * prior
    return Iterate(
        new, objective, lagrangian, relative_change(new, z) / share_of_step(prox), (x, u, new)
    )
