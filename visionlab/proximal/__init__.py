"""Learned proximal networks: exact proximal operators, a readable prior, and solvers that use both.

net = LearnedProximalNetwork(in_channels=1, hidden=64)       # net(v) = grad of net.potential(v)
evaluate_prior(net, x).value                                 # R(x), with a certified gap
certify(net, x).holds                                        # is it a prox? measured, not claimed
"""

from typing import TYPE_CHECKING

from visionlab.registry import Registry, lazy_exports

if TYPE_CHECKING:
    from visionlab.proximal.certificate import Certificate as Certificate
    from visionlab.proximal.certificate import certify as certify
    from visionlab.proximal.compat import load_official as load_official
    from visionlab.proximal.curves import PriorCurve as PriorCurve
    from visionlab.proximal.curves import prior_curve as prior_curve
    from visionlab.proximal.guarantees import Guarantee as Guarantee
    from visionlab.proximal.guarantees import GuaranteeWarning as GuaranteeWarning
    from visionlab.proximal.guarantees import default_weight as default_weight
    from visionlab.proximal.inversion import Inversion as Inversion
    from visionlab.proximal.inversion import invert as invert
    from visionlab.proximal.iteration import Restoration as Restoration
    from visionlab.proximal.losses import proximal_matching_loss as proximal_matching_loss
    from visionlab.proximal.network import LearnedProximalNetwork as LearnedProximalNetwork
    from visionlab.proximal.network import ProximalMap as ProximalMap
    from visionlab.proximal.network import ProximalNetwork as ProximalNetwork
    from visionlab.proximal.prior import PriorResult as PriorResult
    from visionlab.proximal.prior import evaluate_prior as evaluate_prior
    from visionlab.proximal.solvers import pnp_admm as pnp_admm
    from visionlab.proximal.solvers import pnp_hqs as pnp_hqs
    from visionlab.proximal.solvers import pnp_mirror as pnp_mirror
    from visionlab.proximal.solvers import pnp_pgd as pnp_pgd

_EXPORTS = {
    "pnp_admm": "solvers",
    "pnp_pgd": "solvers",
    "pnp_hqs": "solvers",
    "pnp_mirror": "solvers",
    "Restoration": "iteration",
    "Guarantee": "guarantees",
    "GuaranteeWarning": "guarantees",
    "default_weight": "guarantees",
    "proximal_matching_loss": "losses",
    "evaluate_prior": "prior",
    "PriorResult": "prior",
    "invert": "inversion",
    "Inversion": "inversion",
    "certify": "certificate",
    "prior_curve": "curves",
    "PriorCurve": "curves",
    "load_official": "compat",
    "Certificate": "certificate",
    "ProximalMap": "network",
    "ProximalNetwork": "network",
    "LearnedProximalNetwork": "network",
}

PHYSICS = Registry(
    "physics",
    {
        "gaussian_blur": "visionlab.proximal.physics.blur:gaussian_blur",
        "circular_blur": "visionlab.proximal.physics.blur:CircularBlur",
        "valid_blur": "visionlab.proximal.physics.blur:ValidBlur",
        "compressed_sensing": ("visionlab.proximal.physics.compressed_sensing:CompressedSensing"),
        "tomography": "visionlab.proximal.physics.tomography:Tomography",
        "inpainting": "visionlab.proximal.physics.inpainting:Inpainting",
        "super_resolution": "visionlab.proximal.physics.super_resolution:SuperResolution",
        "matrix": "visionlab.proximal.physics.linear:MatrixOperator",
    },
)

__getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
