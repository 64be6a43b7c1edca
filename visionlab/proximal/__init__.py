"""Learned proximal networks: exact proximal operators, a readable prior, and solvers that use both.

net = LearnedProximalNetwork(in_channels=1, hidden=64)       # net(v) = grad of net.potential(v)
evaluate_prior(net, x).value                                 # R(x), with a certified gap
certify(net, x).holds                                        # is it a prox? measured, not claimed
"""

from typing import TYPE_CHECKING

from visionlab.registry import Registry, lazy_exports

if TYPE_CHECKING:
    from visionlab.proximal.network import LearnedProximalNetwork as LearnedProximalNetwork
    from visionlab.proximal.network import ProximalMap as ProximalMap
    from visionlab.proximal.network import ProximalNetwork as ProximalNetwork

_EXPORTS = {
    "ProximalMap": "network",
    "ProximalNetwork": "network",
    "LearnedProximalNetwork": "network",
}

PHYSICS = Registry("physics", {})

__getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
