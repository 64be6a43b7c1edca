"""Mirror descent in the geometry of the network's own potential."""

from functools import partial

import torch
from torch import Tensor

from visionlab.proximal.guarantees import (
    choose_weight,
    mirror_guarantee,
)
from visionlab.proximal.iteration import Callback, Iterate, Restoration, iterate
from visionlab.proximal.network import ProximalMap
from visionlab.proximal.physics.base import Physics
from visionlab.proximal.physics.krylov import dot, per_sample
from visionlab.proximal.solvers.steps import (
    choose,
    first_image,
    relative_change,
    warn_unless_covered,
)


@torch.no_grad()
def pnp_mirror(
    y: Tensor,
    physics: Physics,
    net: ProximalMap,
    weight: float | None = None,
    *,
    noise: float | None = None,
    iterations: int = 200,
    tolerance: float = 1e-4,
    start: Tensor | None = None,
    callback: Callback | None = None,
) -> Restoration:
    """Mirror descent with the network's own potential: ``h + weight R``, exactly, **every** weight.

    The iterate lives before the network: ``x = f(v)``, ``v+ = v - t (grad h(x) + weight (v - x))``.
    With ``t = 1 / weight`` this is proximal gradient descent; here t follows the curvature along
    the last step (Barzilai, Borwein 1988) and is halved, sample by sample, where the objective
    would not fall enough (Armijo). Each iteration costs one network evaluation.

    Args:
        y: measurements ``(B, ...)``, floats.
        net: one network, or ``net.at(sigma)`` of one trained over a range of noise levels.
        weight: of the prior; ``(noise / net.noise_level)^2`` if not given.
        noise: standard deviation of the measurement noise.
        tolerance: stop a sample once its relative change is at most this.
        start: first image; ``physics.initial(y)`` if not given.
        callback: called with the iteration and the images.

    Returns:
        The images with their traces; `Restoration.merit` is the objective.

    Raises:
        TypeError: measurements that are not floats, or a network that is no `ProximalMap`.
        ValueError: NaN in the measurements, or neither ``weight`` nor a way to derive it.
    """
    v = first_image(y, physics, net, start)
    weight = choose_weight(net, weight, noise=noise, name="weight")
    verdict = mirror_guarantee(net)
    warn_unless_covered(verdict)
    x, prior = net.prior_of_output(v)
    slope = physics.gradient(x, y) + weight * (v - x)
    objective = physics.data_term(x, y) + weight * prior
    unit = 1 / max(weight, physics.norm2(physics.image_shape(y)))
    t = torch.full_like(objective, unit)
    step = partial(mirror_step, physics=physics, prox=net, weight=weight, y=y, unit=unit)
    return iterate(step, (v, x, slope, objective, t), x, iterations=iterations, tolerance=tolerance,
                   guarantee=verdict, weight=weight, callback=callback)  # fmt: skip


def mirror_step(
    memory: tuple[Tensor, ...],
    *,
    physics: Physics,
    prox: ProximalMap,
    weight: float,
    y: Tensor,
    unit: float,
) -> Iterate:
    """One step of `pnp_mirror` from (v, x = f(v), gradient at x, objective at x, step size)."""
    v, x, slope, objective, t = memory
    v_new = v - per_sample(t, v) * slope
    x_new, prior = prox.prior_of_output(v_new)
    value = physics.data_term(x_new, y) + weight * prior
    # monotone f makes the last product positive
    enough = value <= objective - 1e-3 * dot(slope, x - x_new) + rounding_slack(value)
    slope_new = physics.gradient(x_new, y) + weight * (v_new - x_new)
    curvature = dot(slope_new - slope, x_new - x)
    spectral = dot(v_new - v, x_new - x) / curvature
    usable = torch.isfinite(spectral) & (curvature > 0)
    t_next = torch.where(usable, spectral.clamp(0.1 * t, 10 * t), 2 * t)
    # where even a minute step lowers nothing, the precision is exhausted: that sample is done
    residual = torch.where(t < 1e-8 * unit, 0.0, relative_change(x_new, x) * unit / t)
    now = Iterate(x_new, value, value, residual, (v_new, x_new, slope_new, value, t_next))
    stay = Iterate(x, objective, objective, residual, (v, x, slope, objective, 0.5 * t))
    return choose(enough, now, stay)


def rounding_slack(value: Tensor) -> Tensor:
    """What a sum may rise by rounding alone."""
    return 4 * torch.finfo(value.dtype).eps * value.abs()
