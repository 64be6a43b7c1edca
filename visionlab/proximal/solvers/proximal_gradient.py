"""Proximal gradient descent, plain and accelerated."""

from functools import partial

import torch
from torch import Tensor

from visionlab.proximal.guarantees import (
    MARGIN,
    choose_weight,
    pgd_guarantee,
)
from visionlab.proximal.iteration import Callback, Iterate, Restoration, iterate
from visionlab.proximal.network import ProximalMap
from visionlab.proximal.physics.base import Physics
from visionlab.proximal.solvers.steps import (
    accelerated_step,
    first_image,
    relative_change,
    share_of_step,
    warn_unless_covered,
)


@torch.no_grad()
def pnp_pgd(
    y: Tensor,
    physics: Physics,
    net: ProximalMap,
    eta: float | None = None,
    *,
    noise: float | None = None,
    guarantee: bool = False,
    accelerate: bool = False,
    iterations: int = 200,
    tolerance: float = 1e-4,
    start: Tensor | None = None,
    callback: Callback | None = None,
) -> Restoration:
    """Proximal gradient descent (Fang et al. 2024, Algorithm 1): ``h + R / eta``.

    Args:
        y: measurements ``(B, ...)``, floats.
        net: one network, or ``net.at(sigma)`` of one trained over a range of noise levels.
        eta: step and inverse weight of the prior; ``(net.noise_level / noise)^2`` if not given.
        noise: standard deviation of the measurement noise.
        guarantee: keep the weight ``1 / eta`` and satisfy the theorem: the step is lowered below
            ``1 / ||A||^2`` and the network relaxed by ``tau = step / eta`` to the same effect.
        accelerate: extrapolate with Nesterov's weights and take the plain step instead wherever
            that does not lower the objective (Li, Lin, NeurIPS 2015, Algorithm 2, monotone), so
            the guarantee stays.
        tolerance: stop a sample once its relative change is at most this.
        start: first image; ``physics.initial(y)`` if not given.
        callback: called with the iteration and the images.

    Returns:
        The images with their traces; `Restoration.merit` is the objective.

    Raises:
        TypeError: measurements that are not floats, or a network that is no `ProximalMap`.
        ValueError: NaN in the measurements, or neither ``eta`` nor a way to derive it.
    """
    x = first_image(y, physics, net, start)
    inverse = None if eta is None else (1 / eta if eta else 0.0)
    weight = choose_weight(net, inverse, noise=noise, name="eta")
    norm2 = physics.norm2(physics.image_shape(y))
    size, prox = 1 / weight, net
    if guarantee and size * norm2 >= 1 - MARGIN:
        size = (1 - MARGIN) / norm2
        prox = net.relaxed(size * weight)
    verdict = pgd_guarantee(net, eta=size, norm2=norm2)
    warn_unless_covered(verdict)
    plain = partial(_pgd_step, physics=physics, prox=prox, eta=size, y=y)
    infinite = x.new_full((len(x),), torch.inf)
    step = partial(accelerated_step, plain=plain) if accelerate else plain
    memory = (x, x, torch.ones_like(infinite), infinite) if accelerate else (x,)
    return iterate(step, memory, x, iterations=iterations, tolerance=tolerance,
                   guarantee=verdict, weight=weight, callback=callback)  # fmt: skip


def _pgd_step(
    memory: tuple[Tensor, ...], *, physics: Physics, prox: ProximalMap, eta: float, y: Tensor
) -> Iterate:
    (x,) = memory
    new, prior = prox.prior_of_output(x - eta * physics.gradient(x, y))
    objective = physics.data_term(new, y) + prior / eta
    return Iterate(new, objective, objective, relative_change(new, x) / share_of_step(prox), (new,))
