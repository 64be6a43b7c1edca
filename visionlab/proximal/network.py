"""Learned proximal networks: f = grad psi of a convex psi, hence an exact proximal operator.

Fang, Buchanan, Sulam, "What's in a Prior? Learned Proximal Networks for Inverse Problems", ICLR
2024, Prop. 3.1: the gradient f of a convex C1 function psi is prox_R of some R (Gribonval and
Nikolova 2020), with R(f(v)) = <v, f(v)> - ||f(v)||^2 / 2 - psi(v).
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from visionlab.backbones.convex import ConvexConv
from visionlab.backbones.convex_potential import ConvexPotential, First
from visionlab.backbones.nonnegative import Constraint, Init
from visionlab.backbones.smooth import Activation

NoiseRange = tuple[float, float]


class ProximalMap(nn.Module):
    """A map f = grad psi with psi convex: the interface that priors and solvers work on.

    Attributes:
        noise_level: standard deviation of the noise that f removes, which fixes the weight of its
            prior (R is about -noise_level^2 log p); None where unknown.
        noise_range: lowest and highest level, for a network trained over a range.
    """

    noise_level: float | None = None
    noise_range: NoiseRange | None = None

    @property
    def curvature(self) -> float:
        """Guaranteed modulus of strong convexity of psi (2 alpha), 0 if none."""
        raise NotImplementedError

    def value_and_prox(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """psi(v) of shape (B,) and f(v) of the shape of ``v``."""
        raise NotImplementedError

    def forward(self, v: Tensor) -> Tensor:
        """f(v)."""
        return self.value_and_prox(v)[1]

    def potential(self, v: Tensor) -> Tensor:
        """psi(v): (B,)."""
        return self.value_and_prox(v)[0]

    def prior_of_output(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """f(v) and R(f(v)), exactly and without inverting f (Eq. 2.3).

        Returns:
            f(v), of the shape of ``v``, and the prior at that point, (B,).
        """
        value, f = self.value_and_prox(v)
        flat_v, flat_f = v.flatten(1), f.flatten(1)
        return f, (flat_v * flat_f).sum(1) - 0.5 * flat_f.square().sum(1) - value

    def relaxed(self, tau: float) -> "RelaxedProx":
        """f_tau = (1 - tau) identity + tau f: the exact prox of a prior about tau times weaker."""
        return RelaxedProx(self, tau)


class RelaxedProx(ProximalMap):
    """f_tau(v) = (1 - tau) v + tau f(v), the gradient of (1 - tau)/2 ||v||^2 + tau psi(v).

    A convex combination of convex potentials, so again an exact prox, of R_tau = tau R to first
    order. It lets a solver use a weight large enough for its theorem and a prior of the right
    strength at once.
    """

    def __init__(self, base: ProximalMap, tau: float) -> None:
        super().__init__()
        if not 0.0 < tau <= 1.0:
            raise ValueError(f"tau must lie in (0, 1], got {tau}")
        self.base, self.tau = base, float(tau)
        self.noise_range = None
        level = base.noise_level
        self.noise_level = None if level is None else level * self.tau**0.5

    @property
    def curvature(self) -> float:
        """(1 - tau) + tau times the curvature of the base."""
        return (1.0 - self.tau) + self.tau * self.base.curvature

    def value_and_prox(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """psi_tau(v) and f_tau(v)."""
        value, f = self.base.value_and_prox(v)
        quadratic = 0.5 * v.flatten(1).square().sum(1)
        return torch.lerp(quadratic, value, self.tau), torch.lerp(v, f, self.tau)

    def forward(self, v: Tensor) -> Tensor:
        """f_tau(v)."""
        return torch.lerp(v, self.base(v), self.tau)

    def prior_of_output(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """f_tau(v) and R_tau(f_tau(v)) = tau (||v||^2/2 - psi(v)) - tau^2/2 ||f(v) - v||^2.

        The general formula, with the large terms that cancel for small tau taken out by hand.
        """
        value, f = self.base.value_and_prox(v)
        envelope = 0.5 * v.flatten(1).square().sum(1) - value
        step = (f - v).flatten(1).square().sum(1)
        return torch.lerp(v, f, self.tau), self.tau * envelope - 0.5 * self.tau**2 * step


class ProximalNetwork(ProximalMap):
    """The gradient of a given convex potential.

    Args:
        backbone: the potential.
        noise_level: what the network was or is to be trained on: one standard deviation, or
            (lowest, highest).
    """

    def __init__(
        self, backbone: ConvexPotential, *, noise_level: float | NoiseRange | None = None
    ) -> None:
        super().__init__()
        if not isinstance(backbone, ConvexPotential):
            raise TypeError(
                f"a proximal network needs a ConvexPotential such as ConvexConv, got "
                f"{type(backbone).__name__}"
            )
        self.backbone = backbone
        if isinstance(noise_level, Sequence):
            self.noise_range = _noise_range(noise_level)
        elif noise_level is not None:
            if not 0 < noise_level < math.inf:
                raise ValueError(f"noise_level must be positive and finite, got {noise_level}")
            self.noise_level = float(noise_level)

    @property
    def curvature(self) -> float:
        """2 alpha."""
        return self.backbone.curvature

    @property
    def conditioned(self) -> bool:
        """Whether the noise level is an input."""
        return self.backbone.noise is not None

    def forward(self, v: Tensor, sigma: float | Tensor | None = None) -> Tensor:
        """f(v), the denoised images.

        Args:
            v: floating point (B, C, H, W), or (B, C, L) or (B, C), as the potential wants; any
                size of at least its total stride.
            sigma: noise level, a number or (B,), for a conditioned network only.

        Raises:
            TypeError: images that are no floats, or not of the type of the weights.
            ValueError: wrong shape, or a noise level missing, superfluous or, as a number, out of
                range.
        """
        self._check(v)
        return self.backbone.gradient(v, self._level(v, sigma))

    def potential(self, v: Tensor, sigma: float | Tensor | None = None) -> Tensor:
        """psi(v): (B,)."""
        self._check(v)
        return self.backbone.value(v, self._level(v, sigma))

    def value_and_prox(
        self, v: Tensor, sigma: float | Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """psi(v) of shape (B,) and f(v), for little more than the cost of f(v)."""
        self._check(v)
        return self.backbone.value_and_gradient(v, self._level(v, sigma))

    def at(self, sigma: float) -> "FixedNoise":
        """The map at one noise level, which solvers and priors take as any other prox."""
        return FixedNoise(self, sigma)

    def _check(self, v: Tensor) -> None:
        if not isinstance(v, Tensor):
            raise TypeError(f"expected images as a torch tensor, got {type(v).__name__}")
        if not v.is_floating_point():
            raise TypeError(
                f"expected floating point images in [0, 1], got {v.dtype}; convert with "
                "images.float() / 255"
            )
        weight = next(self.backbone.parameters())
        if (v.dtype, v.device) != (weight.dtype, weight.device) and not (
            v.device == weight.device and torch.is_autocast_enabled(v.device.type)
        ):
            raise TypeError(
                f"images are {v.dtype} on {v.device}, the network's weights {weight.dtype} on "
                f"{weight.device}; convert one of them with .to(...)"
            )
        self.backbone.check_shape(v.shape)

    def _level(self, v: Tensor, sigma: float | Tensor | None) -> Tensor | None:
        if not self.conditioned:
            if sigma is not None:
                raise ValueError("this network takes no noise level; leave sigma out")
            return None
        if sigma is None:
            raise ValueError(
                f"this network takes a noise level in {self.noise_range}: pass sigma, or use "
                "net.at(sigma)"
            )
        if isinstance(sigma, float | int):
            self.check_level(sigma)
        level = torch.as_tensor(sigma, dtype=v.dtype, device=v.device)
        if level.dim() and level.shape != v.shape[:1]:
            raise ValueError(
                f"sigma is a number or one per image, ({len(v)},); got shape {tuple(level.shape)}"
            )
        return level.expand(v.shape[0])

    def check_level(self, sigma: float) -> None:
        """Raise ValueError unless ``sigma`` lies in the range of noise levels trained on."""
        if self.noise_range is None:
            raise ValueError(
                "this network was not trained over a range of noise levels; use it as it is"
            )
        low, high = self.noise_range
        if not low * (1 - 1e-6) <= sigma <= high * (1 + 1e-6):
            raise ValueError(
                f"sigma must lie in the range trained on, {low:g} to {high:g}, got {sigma:g}"
            )


def _noise_range(levels: Sequence[float]) -> NoiseRange:
    if len(levels) != 2 or not 0 < levels[0] < levels[1] < math.inf:
        raise ValueError(f"noise_level must satisfy 0 < low < high, got {levels!r}")
    return float(levels[0]), float(levels[1])


class FixedNoise(ProximalMap):
    """A conditioned network at one noise level (a blind one: as it is, with that level noted)."""

    def __init__(self, base: ProximalNetwork, sigma: float) -> None:
        super().__init__()
        base.check_level(sigma)
        self.base, self.noise_level = base, float(sigma)

    @property
    def curvature(self) -> float:
        """That of the base."""
        return self.base.curvature

    def value_and_prox(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """psi(v) and f(v) at the fixed level."""
        return self.base.value_and_prox(v, self._sigma)

    def forward(self, v: Tensor) -> Tensor:
        """f(v) at the fixed level."""
        return self.base(v, self._sigma)

    def potential(self, v: Tensor) -> Tensor:
        """psi(v) at the fixed level."""
        return self.base.potential(v, self._sigma)

    @property
    def _sigma(self) -> float | None:
        return self.noise_level if self.base.conditioned else None


class LearnedProximalNetwork(ProximalNetwork):
    """The any-size learned proximal network: the gradient of a `ConvexConv` potential.

    Args:
        in_channels: channels of the image.
        hidden: channels of every layer, or one number per layer.
        strides: stride of each layer, after ``unshuffle``.
        dim: 1 for signals (B, C, L), 2 for images (B, C, H, W).
        kernel_size: odd; one number, or one per layer.
        unshuffle: side of the pixel blocks that become channels; 2 is about four times cheaper.
        activation: ``"squareplus"`` (fast on a CPU) or the paper's ``"softplus"``.
        first: activation of the first layer: the same (the paper), or ``"energy"``, a^2 / 2, which
            learns photographs several times faster (`visionlab.backbones.convex_potential`).
        beta: sharpness of the activation.
        alpha: psi is 2 alpha strongly convex; 0.01 makes the prior easy to invert for.
        heads: every layer (``"all"``) or the last one (``"last"``, the paper) feeds psi.
        constraint: ``"project"``, ``"softplus"`` or ``"square"``.
        init: ``"uniform"`` (ours) or ``"official"``.
        noise_level: one standard deviation, or (lowest, highest).
        conditioned: make the noise level an input; needs a range.

    Example:
        >>> import torch
        >>> net = LearnedProximalNetwork(in_channels=1, hidden=8)
        >>> net(torch.rand(2, 1, 37, 53)).shape
        torch.Size([2, 1, 37, 53])
    """

    def __init__(
        self,
        in_channels: int = 1,
        hidden: int | Sequence[int] = 64,
        *,
        strides: Sequence[int] = (1, 2, 1, 2, 1, 2),
        dim: Literal[1, 2] = 2,
        kernel_size: int | Sequence[int] = 3,
        unshuffle: int = 1,
        activation: Activation = "squareplus",
        first: First = "same",
        beta: float = 100.0,
        alpha: float = 1e-6,
        heads: Literal["all", "last"] = "all",
        constraint: Constraint = "project",
        init: Init = "uniform",
        noise_level: float | NoiseRange | None = None,
        conditioned: bool = False,
    ) -> None:
        if conditioned and not isinstance(noise_level, Sequence):
            raise ValueError(
                "a conditioned network needs the range of its noise: noise_level=(low, high), "
                f"got {noise_level!r}"
            )
        span = None
        if conditioned and isinstance(noise_level, Sequence):
            span = _noise_range(noise_level)
        potential = ConvexConv(
            in_channels,
            hidden,
            strides=strides,
            dim=dim,
            kernel_size=kernel_size,
            unshuffle=unshuffle,
            activation=activation,
            first=first,
            beta=beta,
            alpha=alpha,
            heads=heads,
            constraint=constraint,
            init=init,
            noise_range=span,
        )
        super().__init__(potential, noise_level=noise_level)
