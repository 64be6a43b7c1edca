"""A fast step that no theorem covers, taken only where it lowers the objective enough."""

from collections.abc import Callable
from functools import partial

from torch import Tensor

from visionlab.proximal.iteration import Iterate
from visionlab.proximal.physics.base import Physics
from visionlab.proximal.physics.krylov import dot
from visionlab.proximal.solvers.mirror_descent import rounding_slack
from visionlab.proximal.solvers.steps import choose, relative_change

# the share of ||x+ - x||^2 and of the squared gradient by which a fast step has to lower F
_SHARE = 1e-4

# (image x, dual u) -> (point v before the network, dual u+, image f(v), R(f(v)))
FastStep = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor, Tensor]]


def safeguarded_step(
    memory: tuple[Tensor, ...],
    *,
    fast: FastStep,
    plain: partial[Iterate],
    physics: Physics,
    weight: float,
    y: Tensor,
    norm2: float,
) -> Iterate:
    """The fast step where it lowers ``F = h + weight R`` enough, mirror descent's elsewhere.

    Args:
        memory: that of mirror descent (v, x, slope, objective, t), and the dual u.
        fast: the step tried first.
        plain: mirror descent's step.
        norm2: ``||A||^2``.
    """
    *mirror, u = memory
    _, x, _, objective, t = mirror
    v_new, u_new, x_new, prior = fast(x, u)
    value = physics.data_term(x_new, y) + weight * prior
    slope = physics.gradient(x_new, y) + weight * (v_new - x_new)
    change = x_new - x
    needed = weight * dot(change, change) + dot(slope, slope) / max(weight, norm2)
    enough = value <= objective - _SHARE * needed + rounding_slack(value)
    now = Iterate(
        x_new, value, value, relative_change(x_new, x), (v_new, x_new, slope, value, t, u_new)
    )
    if bool(enough.all()):
        return now
    safe = plain(tuple(mirror))
    v_safe, x_safe = safe.memory[:2]
    # the dual that belongs to x = f(v)
    safe.memory = (*safe.memory, v_safe - x_safe)
    return choose(enough, now, safe)
