"""Matrix-free linear algebra on batches: conjugate gradients and upper bounds of ||A||^2.

A guarantee of the form ``rho > ||A||^2`` needs a bound from **above**; a power iteration approaches
the norm from below. Both routines here return upper bounds.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

Operator = Callable[[Tensor], Tensor]


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner product of each sample: ``(B, ...) x (B, ...) -> (B,)``."""
    return (a * b).flatten(1).sum(1)


def per_sample(values: Tensor, like: Tensor) -> Tensor:
    """Shape ``(B,)`` values so that they broadcast over ``like`` ``(B, ...)``."""
    return values.reshape(-1, *[1] * (like.ndim - 1))


def conjugate_gradients(
    operator: Operator,
    rhs: Tensor,
    *,
    start: Tensor | None = None,
    tolerance: float = 1e-6,
    iterations: int = 200,
) -> Tensor:
    """Solve ``operator(x) = rhs`` for each sample of a batch; the operator is symmetric positive.

    A sample whose residual norm is at most ``tolerance`` times that of its right-hand side stands
    still from then on, so a result does not depend on its neighbours in the batch.
    """
    x = torch.zeros_like(rhs) if start is None else start.clone()
    r = rhs - operator(x) if start is not None else rhs.clone()
    p, rr = r.clone(), dot(r, r)
    target, tiny = tolerance**2 * dot(rhs, rhs), torch.finfo(rhs.dtype).tiny
    for _ in range(iterations):
        active = rr > target
        if not bool(active.any()):
            break
        q = operator(p)
        curvature = dot(p, q)
        step = torch.where(active & (curvature > 0), rr / curvature.clamp_min(tiny), 0.0)
        x = x + per_sample(step, x) * p
        r = r - per_sample(step, x) * q
        rr_next = dot(r, r)
        beta = torch.where(active, rr_next / rr.clamp_min(tiny), 0.0)
        p = torch.where(per_sample(active, p), r + per_sample(beta, p) * p, p)
        rr = torch.where(active, rr_next, rr)
    return x


def norm2_lanczos(
    normal: Operator,
    shape: tuple[int, ...],
    *,
    steps: int = 60,
    failure: float = 1e-9,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> float:
    """Upper bound of the largest eigenvalue of ``normal = A^T A``, by Lanczos from a random start.

    The largest Ritz value theta of k steps is a lower bound, and by Kuczynski and Wozniakowski
    (SIAM J. Matrix Anal. Appl. 1992, Theorem 4.2) the relative error exceeds eps with probability
    at most ``1.648 sqrt(n) exp(-sqrt(eps) (2k - 1))``. The value returned is ``theta / (1 - eps)``
    with eps chosen so that this probability is ``failure``.

    Args:
        shape: of one image, without the batch.

    Raises:
        ValueError: too few steps for the failure probability asked.
    """
    n = math.prod(shape)
    steps = min(steps, n)
    if generator is None:
        generator = torch.Generator().manual_seed(0)
    v = torch.randn(1, *shape, generator=generator, dtype=torch.float64).to(device, dtype)
    v = v / v.norm()
    basis = [v]
    diagonal: list[float] = []
    off: list[float] = []
    for _ in range(steps):
        w = normal(basis[-1])
        diagonal.append(float((w * basis[-1]).sum()))
        for b in basis:  # full re-orthogonalisation: the bound assumes exact arithmetic
            w = w - (w * b).sum() * b
        beta = float(w.norm())
        if beta <= 1e-12 * max(abs(d) for d in diagonal):
            return _largest_ritz_value(diagonal, off) * (1 + 1e-9)  # invariant subspace: exact
        off.append(beta)
        basis.append(w / beta)
    eps = (math.log(1.648 * math.sqrt(n) / failure) / (2 * steps - 1)) ** 2
    if eps >= 0.5:
        raise ValueError(
            f"{steps} Lanczos steps bound the norm only within a factor "
            f"{1 / max(1 - eps, 1e-9):.3g}; pass more steps"
        )
    return _largest_ritz_value(diagonal, off) / (1 - eps)


def _largest_ritz_value(diagonal: list[float], off: list[float]) -> float:
    k = len(diagonal)
    t = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    if k > 1:
        e = torch.tensor(off[: k - 1], dtype=torch.float64)
        t = t + torch.diag(e, 1) + torch.diag(e, -1)
    return float(torch.linalg.eigvalsh(t)[-1])


def norm2_nonnegative(
    normal: Operator,
    shape: tuple[int, ...],
    *,
    iterations: int = 100,
    tolerance: float = 1e-3,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> float:
    """Upper bound of the largest eigenvalue of ``A^T A`` for an A without negative entries.

    Collatz-Wielandt: for any w > 0 the eigenvalue is at most ``max_i (A^T A w)_i / w_i``; power
    iteration on w makes the bound tight. No probability is involved.
    """
    w = torch.ones(1, *shape, dtype=dtype, device=device)
    bound = math.inf
    for _ in range(iterations):
        m = normal(w)
        if float(m.min()) < 0:
            raise ValueError("an operator with negative entries came; use norm2_lanczos for it")
        bound = min(bound, float((m / w).max()))
        if bound == 0 or bound - float((m * w).sum() / (w * w).sum()) <= tolerance * bound:
            break
        # a floor keeps w > 0 at unseen pixels; it costs nothing there, as (A^T A w)_i is 0 too
        w = (m / m.max()).clamp_min(1e-6)
    return bound
