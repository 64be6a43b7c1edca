"""When does a plug-and-play iteration provably descend? The conditions, checked before the run.

Throughout, ``h(x) = 1/2 ||A x - y||^2``, ``L = ||A||^2``, f = prox_R exactly (Gribonval, Nikolova,
"A characterization of proximity operators", J. Math. Imaging Vis. 2020: f is the gradient of a
convex function), R not assumed convex. The sign of a step is all that each proof needs:

PGD
    ``x+ = f(x - eta grad h(x))`` minimises ``<grad h(x), .> + ||. - x||^2 / (2 eta) + R / eta``
    globally, and h lies below its quadratic model of curvature L. So ``F = h + R / eta`` falls by
    at least ``(1/eta - L)/2 ||x+ - x||^2``: strictly for ``eta < 1/L``.
    Attouch, Bolte, Svaiter, Math. Program. 2013, Theorem 5.1 (convergence to a critical point).
ADMM
    In the order x, u, z, with d the change of x, M = A^T A and u scaled: the x-step lowers the
    augmented Lagrangian by ``1/2 d^T (M + rho) d``, the u-step raises it by ``d^T M^2 d / rho``
    (as ``rho u = -grad h(x)``), the z-step lowers it. The sum is negative for every d iff
    ``(rho + 2m)(rho - m) > 0`` for each eigenvalue m of M: iff ``rho > L``.
    Compare Themelis, Patrinos, SIAM J. Optim. 2020, Theorem 4.1 (smooth non-quadratic h).
Half-quadratic splitting
    ``J(x, z) = h(x) + w/2 ||x - z||^2 + w R(z)`` is minimised in z by f and in x by a linear
    solve, each globally, so J falls for **every** weight w. Minimised over z, J is
    ``h + w env R`` with the Moreau envelope ``env R(x) = ||x||^2 / 2 - psi(x)``, readable off the
    network. Geman, Yang, IEEE Trans. Image Process. 1995.
Mirror descent
    ``v+ = v - t grad F(f(v))`` with ``F = h + w R`` and ``grad R(f(v)) = v - f(v)`` is mirror
    descent with mirror map psi*. ``L' psi* - F`` is convex for ``L' = w + max(L - w, 0) Lip(f)``,
    so F falls for ``t <= 1/L'`` (Bolte, Sabach, Teboulle, Vaisbourd, SIAM J. Optim. 2018, Lemma
    4.1), for **every** weight w. A backtracking search on F finds t, so Lip(f) need not be known.
Safeguarded ADMM
    An ADMM step is taken where it lowers F by at least
    ``c (w ||x+ - x||^2 + ||grad F(x+)||^2 / max(L, w))``, elsewhere a step of mirror descent, which
    lowers F by at least ``c' t <grad F(x), x - x+>``, with the dual that belongs to its point. F
    falls at every step, for **every** weight, and grad F tends to 0: the squared gradients of the
    first kind have a finite sum, and so have the decreases of the second.

Convergence of the whole sequence to a critical point needs in addition that the iterates stay
bounded and that F is a Kurdyka-Lojasiewicz function; the networks here are analytic, so it is.
"""

import math
from dataclasses import dataclass

from torch import nn

from visionlab.backbones.nonnegative import NonNegativeWeight
from visionlab.proximal.network import ProximalMap

# the share of the theorem's range that guaranteed modes use
MARGIN = 0.05
_WAY_OUT = "; guarantee=True keeps the weight and restores the theorem"


class GuaranteeWarning(UserWarning):
    """A run whose descent no theorem covers."""


@dataclass(frozen=True)
class Guarantee:
    """Whether the theorem of a solver applies, and why (not).

    Attributes:
        holds: the conditions are met.
        reason: the condition that decides, with its numbers.
        quantity: what falls monotonically when it holds.
    """

    holds: bool
    reason: str
    quantity: str


def pgd_guarantee(net: ProximalMap, *, eta: float, norm2: float) -> Guarantee:
    """Proximal gradient descent: ``eta < 1 / ||A||^2``."""
    holds, sign = eta < 1 / norm2, "<" if eta < 1 / norm2 else ">="
    reason = f"eta = {eta:.4g} {sign} 1 / ||A||^2 = {1 / norm2:.4g}"
    return _verdict(
        net, holds, reason if holds else f"{reason}, the theorem needs <{_WAY_OUT}", "h + R / eta"
    )


def admm_guarantee(net: ProximalMap, *, rho: float, norm2: float) -> Guarantee:
    """ADMM: ``rho > ||A||^2``."""
    holds, sign = rho > norm2, ">" if rho > norm2 else "<="
    reason = f"rho = {rho:.4g} {sign} ||A||^2 = {norm2:.4g}"
    return _verdict(
        net,
        holds,
        reason if holds else f"{reason}, the theorem needs >{_WAY_OUT}",
        "the augmented Lagrangian",
    )


def splitting_guarantee(net: ProximalMap) -> Guarantee:
    """Half-quadratic splitting: any weight."""
    reason = "both steps minimise the same function exactly, whatever the weight"
    return _verdict(net, True, reason, "h(x) + w/2 ||x - z||^2 + w R(z)")


def mirror_guarantee(net: ProximalMap) -> Guarantee:
    """Mirror descent: any weight."""
    reason = "a step is taken only when it lowers h + w R enough, and a small one does"
    return _verdict(net, True, reason, "h + w R")


def safeguard_guarantee(net: ProximalMap) -> Guarantee:
    """Safeguarded ADMM: any weight."""
    reason = (
        "a step of ADMM is taken only when it lowers h + w R enough, else one of mirror descent"
    )
    return _verdict(net, True, reason, "h + w R")


def default_weight(measurement_noise: float, noise_level: float) -> float:
    """``(s / sigma)^2``: the weight at which h + weight R is a negative log-posterior times s^2.

    R of a network trained at noise sigma is about ``-sigma^2 log p``, and MAP asks for
    ``h - s^2 log p``.

    Raises:
        ValueError: a noise level that is not positive.
    """
    for name, value in (("measurement_noise", measurement_noise), ("noise_level", noise_level)):
        if not (value > 0 and math.isfinite(value)):
            raise ValueError(f"{name} is a positive standard deviation, got {value}")
    return (measurement_noise / noise_level) ** 2


def choose_weight(
    net: ProximalMap, weight: float | None, *, noise: float | None, name: str
) -> float:
    """The weight given, or the default one from the noise levels.

    Raises:
        ValueError: a weight that is not positive, or none and too little to derive it from.
    """
    if weight is not None:
        if not (weight > 0 and math.isfinite(weight)):
            raise ValueError(f"{name} is a positive number, got {weight}")
        return float(weight)
    if noise is None or net.noise_level is None:
        missing = "noise=" if noise is None else "a network whose noise_level is known"
        hint = "; fix the level of a network trained over a range with net.at(sigma)"
        raise ValueError(
            f"pass {name}, or noise= (the standard deviation of the measurement noise) so that "
            f"{name} can follow from it and from the network's noise level. Missing: {missing}"
            + (hint if net.noise_range is not None else "")
        )
    return default_weight(noise, net.noise_level)


def negative_weights(net: nn.Module) -> int:
    """Count of constrained weights that are negative or not a number: 0 for a convex potential."""
    return sum(int((~(m() >= 0)).sum()) for m in net.modules() if isinstance(m, NonNegativeWeight))


def _verdict(net: ProximalMap, holds: bool, reason: str, quantity: str) -> Guarantee:
    """The verdict on step and weight, unless the premise of all theorems fails: f is a prox."""
    count = negative_weights(net)
    if count:
        return Guarantee(
            False,
            f"{count} constrained weights are not nonnegative, so the potential need not be "
            "convex and the network need not be a prox",
            quantity,
        )
    return Guarantee(holds, reason, quantity)
