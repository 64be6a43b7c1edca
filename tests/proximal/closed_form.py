"""Exact proximal maps whose prior is known in closed form: solvers have exact answers on them."""

import torch
from torch import Tensor

from visionlab.proximal.network import ProximalMap


class QuadraticProx(ProximalMap):
    """``f(v) = q v``: the prox of ``R(x) = (1/q - 1)/2 ||x||^2``; q > 1 makes R concave."""

    def __init__(self, q: float = 0.5, *, noise_level: float | None = 0.1) -> None:
        super().__init__()
        self.q, self.noise_level = q, noise_level

    @property
    def curvature(self) -> float:
        return self.q

    def value_and_prox(self, v: Tensor) -> tuple[Tensor, Tensor]:
        return 0.5 * self.q * v.flatten(1).square().sum(1), self.q * v


class BumpProx(ProximalMap):
    """``psi = sum log cosh(v) + c/2 v^2``, f = tanh(v) + c v: R is neither convex nor quadratic.

    The slope of f runs from 1 + c at 0 to c far out, as that of a sparsity-promoting network.
    """

    def __init__(self, c: float = 0.2, *, noise_level: float | None = 0.1) -> None:
        super().__init__()
        self.c, self.noise_level = c, noise_level

    @property
    def curvature(self) -> float:
        return self.c

    def value_and_prox(self, v: Tensor) -> tuple[Tensor, Tensor]:
        size = v.abs()
        log_cosh = size + torch.log1p(torch.exp(-2 * size)) - torch.log(torch.tensor(2.0).to(v))
        value = (log_cosh + 0.5 * self.c * v.square()).flatten(1).sum(1)
        return value, torch.tanh(v) + self.c * v
