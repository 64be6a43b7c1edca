"""Bridges to and from the library deepinv (optional: ``pip install visionlab[deepinv]``).

`LPNDenoiser` and `LPNPrior` plug a proximal network into deepinv's solvers; `DeepinvPhysics` plugs
a linear deepinv operator into ours. Checked against deepinv 0.5.0.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

try:
    import deepinv
except ImportError as error:
    raise ImportError(
        "visionlab.proximal.deepinv needs the library deepinv: pip install 'visionlab[deepinv]'"
    ) from error

from visionlab.proximal.network import ProximalMap, ProximalNetwork
from visionlab.proximal.physics.base import Physics, check_adjoint


def _check_prox(net: ProximalMap) -> None:
    if not isinstance(net, ProximalMap):
        raise TypeError(
            f"expected an exact prox (a ProximalMap such as LearnedProximalNetwork), got "
            f"{type(net).__name__}"
        )


class LPNDenoiser(deepinv.models.Denoiser):
    """A proximal network as a deepinv denoiser, ``denoiser(x, sigma)``.

    A network conditioned on the noise level takes ``sigma``; any other one removes the noise it
    was trained on, whatever ``sigma`` says, and warns once when they differ.
    """

    def __init__(self, net: ProximalMap) -> None:
        super().__init__()
        _check_prox(net)
        self.net = net
        self._warned = False

    def forward(self, x: Tensor, sigma: float | Tensor | None = None, **kwargs: Any) -> Tensor:
        """The denoised images; see the class for the meaning of ``sigma``."""
        if isinstance(self.net, ProximalNetwork) and self.net.conditioned:
            return self.net(x, sigma)
        known = self.net.noise_level
        if sigma is not None and known is not None and not self._warned:
            level = torch.as_tensor(sigma, dtype=torch.float64)
            if bool((level - known).abs().max() > 0.05 * known):
                self._warned = True
                warnings.warn(
                    f"this network removes noise of {known:g} and ignores the level asked for, "
                    f"{level.flatten()[0]:g}; train one with conditioned=True to vary it",
                    stacklevel=2,
                )
        return self.net(x)


class LPNPrior(deepinv.optim.Prior):
    """The learned prior R with its exact prox, for deepinv's optimisers.

    The network is ``prox_R`` for unit step only, and deepinv's solvers call the prox with
    ``gamma = lambda_reg * stepsize``. To minimise ``h + w R`` set ``lambda_reg=w`` and
    ``stepsize=1 / w``; any other product raises, as the network would silently solve another
    problem.

    Args:
        net: an exact prox.
        explicit_prior: let deepinv trace the cost. R is read off the network for points that the
            prox returned last, without inversion; for other points the network is inverted.
    """

    def __init__(self, net: ProximalMap, *, explicit_prior: bool = True) -> None:
        super().__init__()
        _check_prox(net)
        self.net, self.explicit_prior = net, explicit_prior
        self._output: Tensor | None = None
        self._value: Tensor | None = None

    def prox(self, x: Tensor, *args: Any, gamma: float | Tensor = 1.0, **kwargs: Any) -> Tensor:
        """``prox_R(x)``.

        Raises:
            ValueError: ``gamma`` is not 1.
        """
        step = torch.as_tensor(gamma, dtype=torch.float64)
        if not bool((step - 1).abs().max() <= 1e-5):
            raise ValueError(
                f"the network is the prox of R at step 1, asked for step {step.flatten()[0]:g}: "
                "for weight w set lambda_reg=w and stepsize=1/w, so that their product is 1"
            )
        self._output, self._value = self.net.prior_of_output(x)
        return self._output

    def fn(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """R(x), ``(B,)``; by inversion unless ``x`` is what `prox` returned last."""
        if x is self._output and self._value is not None:
            return self._value
        from visionlab.proximal import evaluate_prior

        return evaluate_prior(self.net, x).value

    def grad(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Not offered: R's gradient ``f^-1(x) - x`` needs an inversion at each call.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(
            "the gradient of R needs an inversion of the network; use a solver that calls the "
            "prox (PGD, ADMM, HQS), or visionlab.proximal.pnp_mirror for gradient steps on R"
        )


class DeepinvPhysics(Physics):
    """A linear deepinv operator as one of ours.

    Args:
        physics: with ``A`` and ``A_adjoint``.
        image_shape: ``(C, H, W)`` of one image.

    Raises:
        TypeError: not a linear deepinv operator.
        ValueError: its ``A_adjoint`` is not the adjoint of its ``A``.
    """

    def __init__(
        self, physics: "deepinv.physics.LinearPhysics", image_shape: Sequence[int]
    ) -> None:
        super().__init__()
        if not isinstance(physics, deepinv.physics.LinearPhysics):
            raise TypeError(f"expected a deepinv LinearPhysics, got {type(physics).__name__}")
        self.physics, self.shape = physics, tuple(int(s) for s in image_shape)
        x = torch.randn(1, *self.shape, generator=torch.Generator().manual_seed(0))
        x = x.to(self._precision()[1])
        y = physics.A(x)
        probe = torch.roll(y, 1, -1)
        check_adjoint(x, probe, y, physics.A_adjoint(probe), allowed=1e-4)

    def image_shape(self, y: Tensor) -> tuple[int, ...]:
        """Shape of one image."""
        return self.shape

    def forward(self, x: Tensor) -> Tensor:
        """``A x``."""
        return self.physics.A(x)

    def adjoint(self, y: Tensor) -> Tensor:
        """``A^T y``."""
        return self.physics.A_adjoint(y)

    def _precision(self) -> tuple[torch.dtype, torch.device]:
        # deepinv's operators work in float32 unless told otherwise
        for buffer in self.physics.buffers():
            if buffer.is_floating_point():
                return buffer.dtype, buffer.device
        return torch.float32, torch.device("cpu")
