"""Half-quadratic splitting."""

from functools import partial

import torch
from torch import Tensor

from visionlab.proximal.guarantees import (
    choose_weight,
    splitting_guarantee,
)
from visionlab.proximal.iteration import Callback, Iterate, Restoration, iterate
from visionlab.proximal.network import ProximalMap
from visionlab.proximal.physics.base import Physics
from visionlab.proximal.solvers.steps import (
    accelerated_step,
    first_image,
    relative_change,
    solve_tolerance,
    warn_unless_covered,
)


@torch.no_grad()
def pnp_hqs(
    y: Tensor,
    physics: Physics,
    net: ProximalMap,
    weight: float | None = None,
    *,
    noise: float | None = None,
    accelerate: bool = True,
    iterations: int = 100,
    tolerance: float = 1e-4,
    start: Tensor | None = None,
    callback: Callback | None = None,
) -> Restoration:
    """Half-quadratic splitting: descends provably at **every** weight.

    Minimises ``h(x) + weight/2 ||x - z||^2 + weight R(z)`` alternately over x (linear solve) and z
    (the network), that is ``h + weight env R`` with the Moreau envelope of R, the limit that the
    relaxed prox tends to as tau -> 0.

    Args:
        y: measurements ``(B, ...)``, floats.
        net: one network, or ``net.at(sigma)`` of one trained over a range of noise levels.
        weight: of the prior; ``(noise / net.noise_level)^2`` if not given.
        noise: standard deviation of the measurement noise.
        accelerate: extrapolate, falling back to the plain step wherever the merit would rise.
        tolerance: stop a sample once its relative change is at most this.
        start: first image; ``physics.initial(y)`` if not given.
        callback: called with the iteration and the images.

    Returns:
        x and its traces; `Restoration.merit` is the function of (x, z) above, and `objective` is
        ``h + weight R`` at z.

    Raises:
        TypeError: measurements that are not floats, or a network that is no `ProximalMap`.
        ValueError: NaN in the measurements, or neither ``weight`` nor a way to derive it.
    """
    x = first_image(y, physics, net, start)
    weight = choose_weight(net, weight, noise=noise, name="weight")
    verdict = splitting_guarantee(net)
    warn_unless_covered(verdict)
    plain = partial(
        _hqs_step, physics=physics, prox=net, weight=weight, y=y, back=physics.adjoint(y)
    )
    infinite = x.new_full((len(x),), torch.inf)
    step = partial(accelerated_step, plain=plain) if accelerate else plain
    memory = (x, x, torch.ones_like(infinite), infinite) if accelerate else (x,)
    return iterate(step, memory, x, iterations=iterations, tolerance=tolerance,
                   guarantee=verdict, weight=weight, callback=callback)  # fmt: skip


def _hqs_step(
    memory: tuple[Tensor, ...],
    *,
    physics: Physics,
    prox: ProximalMap,
    weight: float,
    y: Tensor,
    back: Tensor,
) -> Iterate:
    (x,) = memory
    z, prior = prox.prior_of_output(x)
    new = physics.solve(back + weight * z, weight, start=x, tolerance=solve_tolerance(x))
    joint = (
        physics.data_term(new, y)
        + 0.5 * weight * (new - z).flatten(1).square().sum(1)
        + weight * prior
    )
    objective = physics.data_term(z, y) + weight * prior
    return Iterate(new, objective, joint, relative_change(new, x), (new,))
