"""What the solvers share: checks of their input, and steps made of steps."""

import warnings
from functools import partial

import torch
from torch import Tensor

from visionlab.proximal.guarantees import Guarantee, GuaranteeWarning
from visionlab.proximal.iteration import Iterate
from visionlab.proximal.network import ProximalMap, RelaxedProx
from visionlab.proximal.physics.base import Physics, check_images
from visionlab.proximal.physics.krylov import per_sample

_SOLVE_TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-10}


def first_image(y: Tensor, physics: Physics, net: ProximalMap, start: Tensor | None) -> Tensor:
    """Check what came in and return the first image."""
    check_images(y, name="measurements", ndim=None)
    if not isinstance(net, ProximalMap):
        raise TypeError(
            f"the solvers need an exact prox (a ProximalMap such as LearnedProximalNetwork), got "
            f"{type(net).__name__}: a denoiser that is no prox has no objective to trace"
        )
    if not isinstance(physics, Physics):
        raise TypeError(
            "physics: expected a Physics such as gaussian_blur(1.0), got "
            f"{type(physics).__name__}; FunctionOperator makes one of any linear function"
        )
    shape = (len(y), *physics.image_shape(y))
    if start is None:
        return physics.initial(y)
    if tuple(start.shape) != shape:
        raise ValueError(f"start has shape {tuple(start.shape)}, the images {shape}")
    return check_images(start, name="start", ndim=None).to(y)


def warn_unless_covered(verdict: Guarantee) -> None:
    """Warn where no theorem covers the run, and say why."""
    if not verdict.holds:
        warnings.warn(
            f"no theorem covers this run, though it may still work: {verdict.reason}",
            GuaranteeWarning,
            stacklevel=3,
        )


def solve_tolerance(x: Tensor) -> float:
    """Relative residual to which x-steps by conjugate gradients are solved in the dtype of x."""
    return _SOLVE_TOLERANCE.get(x.dtype, 1e-6)


def share_of_step(prox: ProximalMap) -> float:
    """The share of a full network step that a relaxed network takes."""
    return prox.tau if isinstance(prox, RelaxedProx) else 1.0


def relative_change(new: Tensor, old: Tensor) -> Tensor:
    """||new - old|| / ||old|| per sample, (B,)."""
    tiny = torch.finfo(new.dtype).tiny
    return (new - old).flatten(1).norm(dim=1) / old.flatten(1).norm(dim=1).clamp_min(tiny)


def accelerated_step(memory: tuple[Tensor, ...], *, plain: partial[Iterate]) -> Iterate:
    """Step from ``x + (t - 1)/t' (x - previous)``; where the merit would rise, from x itself."""
    x, previous, t, merit = memory
    t_next = 0.5 * (1 + torch.sqrt(1 + 4 * t * t))
    ahead = x + per_sample((t - 1) / t_next, x) * (x - previous)
    now = plain((ahead,))
    rose = ~(now.merit <= merit)
    if bool(rose.any()):
        now = choose(rose, plain((x,)), now)
        t_next = torch.where(rose, 1.0, t_next)
    new = now.memory[0]
    return Iterate(now.image, now.objective, now.merit, now.residual, (new, x, t_next, now.merit))


def choose(where: Tensor, a: Iterate, b: Iterate) -> Iterate:
    """``a`` for the samples where ``where`` (B,) is true, ``b`` for the others."""

    def pick(p: Tensor, q: Tensor) -> Tensor:
        return torch.where(per_sample(where, p), p, q)

    return Iterate(
        pick(a.image, b.image),
        pick(a.objective, b.objective),
        pick(a.merit, b.merit),
        pick(a.residual, b.residual),
        tuple(pick(p, q) for p, q in zip(a.memory, b.memory, strict=True)),
    )
