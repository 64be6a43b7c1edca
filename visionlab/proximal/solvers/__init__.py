"""Plug-and-play solvers with a learned proximal network, batched, with their true objective.

All minimise ``h(x) + weight R(x)``, ``h = 1/2 ||A x - y||^2``; R is the network's own prior, read
off at each output of the network without any inversion. `visionlab.proximal.guarantees` states when
each of them provably descends.
"""

from visionlab.proximal.solvers.admm import pnp_admm
from visionlab.proximal.solvers.half_quadratic import pnp_hqs
from visionlab.proximal.solvers.mirror_descent import pnp_mirror
from visionlab.proximal.solvers.proximal_gradient import pnp_pgd

__all__ = ["pnp_admm", "pnp_hqs", "pnp_mirror", "pnp_pgd"]
