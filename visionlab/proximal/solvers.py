"""Plug-and-play solvers with a learned proximal network, batched, with their true objective.

All minimise ``h(x) + weight R(x)``, ``h = 1/2 ||A x - y||^2``; R is the network's own prior, read
off at each output of the network without any inversion. `visionlab.proximal.guarantees` states when
each of them provably descends.
"""

import warnings
from functools import partial

import torch
from torch import Tensor

from visionlab.proximal.guarantees import (
    MARGIN,
    Guarantee,
    GuaranteeWarning,
    admm_guarantee,
    choose_weight,
    mirror_guarantee,
    pgd_guarantee,
    splitting_guarantee,
)
from visionlab.proximal.iteration import Callback, Iterate, Restoration, iterate
from visionlab.proximal.network import ProximalMap, RelaxedProx
from visionlab.proximal.physics.base import Physics, check_images
from visionlab.proximal.physics.krylov import dot, per_sample

# x-steps by conjugate gradients are solved this well (relative residual), in float32 and float64
_SOLVE = {torch.float32: 1e-6, torch.float64: 1e-10}


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
    x = _prepare(y, physics, net, start)
    weight = choose_weight(net, rho, noise=noise, name="rho")
    norm2 = physics.norm2(physics.image_shape(y))
    penalty, prox = weight, net
    if guarantee and weight <= norm2 * (1 + MARGIN):
        penalty = norm2 * (1 + MARGIN)
        prox = net.relaxed(weight / penalty)
    verdict = admm_guarantee(net, rho=penalty, norm2=norm2)
    _warn(verdict)
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
    x = physics.solve(back + rho * (z - u), rho, start=x, tolerance=_SOLVE.get(x.dtype, 1e-6))
    u = u + x - z
    new, prior = prox.prior_of_output(x + u)
    lagrangian = (
        physics.data_term(x, y)
        + rho * prior
        + rho * (dot(u, x - new) + 0.5 * (x - new).flatten(1).square().sum(1))
    )
    objective = physics.data_term(new, y) + rho * prior
    return Iterate(new, objective, lagrangian, _change(new, z) / _share(prox), (x, u, new))


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
    x = _prepare(y, physics, net, start)
    inverse = None if eta is None else (1 / eta if eta else 0.0)
    weight = choose_weight(net, inverse, noise=noise, name="eta")
    norm2 = physics.norm2(physics.image_shape(y))
    size, prox = 1 / weight, net
    if guarantee and size * norm2 >= 1 - MARGIN:
        size = (1 - MARGIN) / norm2
        prox = net.relaxed(size * weight)
    verdict = pgd_guarantee(net, eta=size, norm2=norm2)
    _warn(verdict)
    plain = partial(_pgd_step, physics=physics, prox=prox, eta=size, y=y)
    infinite = x.new_full((len(x),), torch.inf)
    step = partial(_accelerated_step, plain=plain) if accelerate else plain
    memory = (x, x, torch.ones_like(infinite), infinite) if accelerate else (x,)
    return iterate(step, memory, x, iterations=iterations, tolerance=tolerance,
                   guarantee=verdict, weight=weight, callback=callback)  # fmt: skip


def _pgd_step(
    memory: tuple[Tensor, ...], *, physics: Physics, prox: ProximalMap, eta: float, y: Tensor
) -> Iterate:
    (x,) = memory
    new, prior = prox.prior_of_output(x - eta * physics.gradient(x, y))
    objective = physics.data_term(new, y) + prior / eta
    return Iterate(new, objective, objective, _change(new, x) / _share(prox), (new,))


def _accelerated_step(memory: tuple[Tensor, ...], *, plain: partial[Iterate]) -> Iterate:
    """Step from ``x + (t - 1)/t' (x - previous)``; where the merit would rise, from x itself."""
    x, previous, t, merit = memory
    t_next = 0.5 * (1 + torch.sqrt(1 + 4 * t * t))
    ahead = x + per_sample((t - 1) / t_next, x) * (x - previous)
    now = plain((ahead,))
    rose = ~(now.merit <= merit)
    if bool(rose.any()):
        now = _choose(rose, plain((x,)), now)
        t_next = torch.where(rose, 1.0, t_next)
    new = now.memory[0]
    return Iterate(now.image, now.objective, now.merit, now.residual, (new, x, t_next, now.merit))


def _choose(where: Tensor, a: Iterate, b: Iterate) -> Iterate:
    def pick(p: Tensor, q: Tensor) -> Tensor:
        return torch.where(per_sample(where, p), p, q)

    return Iterate(
        pick(a.image, b.image),
        pick(a.objective, b.objective),
        pick(a.merit, b.merit),
        pick(a.residual, b.residual),
        tuple(pick(p, q) for p, q in zip(a.memory, b.memory, strict=True)),
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
    x = _prepare(y, physics, net, start)
    weight = choose_weight(net, weight, noise=noise, name="weight")
    verdict = splitting_guarantee(net)
    _warn(verdict)
    plain = partial(
        _hqs_step, physics=physics, prox=net, weight=weight, y=y, back=physics.adjoint(y)
    )
    infinite = x.new_full((len(x),), torch.inf)
    step = partial(_accelerated_step, plain=plain) if accelerate else plain
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
    new = physics.solve(back + weight * z, weight, start=x, tolerance=_SOLVE.get(x.dtype, 1e-6))
    joint = (
        physics.data_term(new, y)
        + 0.5 * weight * (new - z).flatten(1).square().sum(1)
        + weight * prior
    )
    objective = physics.data_term(z, y) + weight * prior
    return Iterate(new, objective, joint, _change(new, x), (new,))


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
    v = _prepare(y, physics, net, start)
    weight = choose_weight(net, weight, noise=noise, name="weight")
    verdict = mirror_guarantee(net)
    _warn(verdict)
    x, prior = net.prior_of_output(v)
    slope = physics.gradient(x, y) + weight * (v - x)
    objective = physics.data_term(x, y) + weight * prior
    unit = 1 / max(weight, physics.norm2(physics.image_shape(y)))
    t = torch.full_like(objective, unit)
    step = partial(_mirror_step, physics=physics, prox=net, weight=weight, y=y, unit=unit)
    return iterate(step, (v, x, slope, objective, t), x, iterations=iterations, tolerance=tolerance,
                   guarantee=verdict, weight=weight, callback=callback)  # fmt: skip


def _mirror_step(
    memory: tuple[Tensor, ...],
    *,
    physics: Physics,
    prox: ProximalMap,
    weight: float,
    y: Tensor,
    unit: float,
) -> Iterate:
    v, x, slope, objective, t = memory
    v_new = v - per_sample(t, v) * slope
    x_new, prior = prox.prior_of_output(v_new)
    value = physics.data_term(x_new, y) + weight * prior
    # monotone f makes the last term positive; rounding of the sums is not a rise
    slack = 4 * torch.finfo(value.dtype).eps * value.abs()
    enough = value <= objective - 1e-3 * dot(slope, x - x_new) + slack
    slope_new = physics.gradient(x_new, y) + weight * (v_new - x_new)
    curvature = dot(slope_new - slope, x_new - x)
    spectral = dot(v_new - v, x_new - x) / curvature
    usable = torch.isfinite(spectral) & (curvature > 0)
    t_next = torch.where(usable, spectral.clamp(0.1 * t, 10 * t), 2 * t)
    # where even a minute step lowers nothing, the precision is exhausted: that sample is done
    residual = torch.where(t < 1e-8 * unit, 0.0, _change(x_new, x) * unit / t)
    now = Iterate(x_new, value, value, residual, (v_new, x_new, slope_new, value, t_next))
    stay = Iterate(x, objective, objective, residual, (v, x, slope, objective, 0.5 * t))
    return _choose(enough, now, stay)


def _prepare(y: Tensor, physics: Physics, net: ProximalMap, start: Tensor | None) -> Tensor:
    """Check what came in and return the first image."""
    check_images(y, name="measurements", ndim=None)
    if not isinstance(net, ProximalMap):
        raise TypeError(
            f"the solvers need an exact prox (a ProximalMap such as LearnedProximalNetwork), got "
            f"{type(net).__name__}: a denoiser that is no prox has no objective to trace"
        )
    shape = (len(y), *physics.image_shape(y))
    if start is None:
        return physics.initial(y)
    if tuple(start.shape) != shape:
        raise ValueError(f"start has shape {tuple(start.shape)}, the images {shape}")
    return check_images(start, name="start", ndim=None).to(y)


def _warn(verdict: Guarantee) -> None:
    if not verdict.holds:
        warnings.warn(
            f"no theorem covers this run: {verdict.reason}. It may still work; guarantee=True "
            "keeps the weight and restores the theorem",
            GuaranteeWarning,
            stacklevel=3,
        )


def _share(prox: ProximalMap) -> float:
    """The share of a full network step that a relaxed network takes."""
    return prox.tau if isinstance(prox, RelaxedProx) else 1.0


def _change(new: Tensor, old: Tensor) -> Tensor:
    tiny = torch.finfo(new.dtype).tiny
    return (new - old).flatten(1).norm(dim=1) / old.flatten(1).norm(dim=1).clamp_min(tiny)
