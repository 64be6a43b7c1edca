"""Input-convex networks: images and signals of any size, and vectors. See `convex_potential`."""

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor
from torch.nn import functional as F

from visionlab.backbones.convex_potential import ConvexPotential, First, Layer
from visionlab.backbones.nonnegative import Constraint, Init
from visionlab.backbones.smooth import Activation


class ConvexConv(ConvexPotential):
    """Input-convex potential of signals or images of any size and channel count.

    u = P x: zero padding at the far ends to a multiple of the total stride, then (with
    ``unshuffle`` r > 1) the pixels of each r x r block become channels. P is linear and P^T P = 1,
    so psi(P x) is convex and its gradient P^T grad psi(P x) is exact at every size. Sums, never
    means, over positions: the same network serves all sizes.

    Args:
        in_channels: channels of the image.
        hidden: channels of every layer, or one number per layer.
        strides: stride of each layer, after ``unshuffle``.
        dim: 1 for signals (B, C, L), 2 for images (B, C, H, W).
        kernel_size: odd; one number, or one per layer.
        unshuffle: side of the blocks that become channels; 1 works at full resolution.
        activation: see `ConvexPotential`, as ``first``, ``beta``, ``alpha``, ``heads``,
            ``constraint``, ``init`` and ``noise_range``.
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
        noise_range: tuple[float, float] | None = None,
    ) -> None:
        if dim not in (1, 2):
            raise ValueError(f"dim is 1 (signals) or 2 (images), got {dim}")
        widths = _per_layer(hidden, len(strides), "hidden")
        kernels = _per_layer(kernel_size, len(strides), "kernel_size")
        if any(k < 1 or k % 2 == 0 for k in kernels):
            raise ValueError(f"kernel_size must be odd and positive, got {kernel_size}")
        if not strides or min(in_channels, unshuffle, *widths, *strides) < 1:
            raise ValueError(
                "in_channels, hidden, unshuffle and every stride must be at least 1, got "
                f"{in_channels}, {hidden}, {unshuffle} and {tuple(strides)}"
            )
        layers, pool = [], 1
        for width, kernel, stride in zip(widths, kernels, strides, strict=True):
            layers.append(Layer(width, kernel, stride, kernel // 2, pool))
            pool *= stride
        super().__init__(
            in_channels * unshuffle**dim,
            layers,
            dim=dim,
            activation=activation,
            first=first,
            beta=beta,
            alpha=alpha,
            heads=heads,
            constraint=constraint,
            init=init,
            noise_range=noise_range,
        )
        self.unshuffle = unshuffle
        self.total_stride = self.minimum_size = pool * unshuffle
        self.image_channels = in_channels

    def _enter(self, x: Tensor) -> Tensor:
        margins: list[int] = []
        for n in reversed(x.shape[2:]):
            margins += [0, -n % self.total_stride]
        u = F.pad(x, margins) if any(margins) else x
        return u if self.unshuffle == 1 else _unshuffle(u, self.unshuffle)

    def _leave(self, gradient: Tensor, x: Tensor) -> Tensor:
        if self.unshuffle > 1:
            gradient = _shuffle(gradient, self.unshuffle)
        inside: tuple[Any, ...] = (..., *(slice(n) for n in x.shape[2:]))
        return gradient[inside]


def _per_layer(value: int | Sequence[int], count: int, name: str) -> list[int]:
    values = [value] * count if isinstance(value, int) else list(value)
    if len(values) != count:
        raise ValueError(f"{name} needs one number or one per stride: {count}, got {len(values)}")
    return values


def _unshuffle(x: Tensor, r: int) -> Tensor:
    """(B, C, H, W) -> (B, C r r, H / r, W / r), and likewise for signals."""
    if x.dim() == 4:
        return F.pixel_unshuffle(x, r)
    batch, channels, length = x.shape
    return x.reshape(batch, channels, length // r, r).transpose(2, 3).flatten(1, 2)


def _shuffle(x: Tensor, r: int) -> Tensor:
    """Inverse, and adjoint, of `_unshuffle`."""
    if x.dim() == 4:
        return F.pixel_shuffle(x, r)
    batch, channels, length = x.shape
    return (
        x.reshape(batch, channels // r, r, length)
        .transpose(2, 3)
        .reshape(batch, channels // r, length * r)
    )


class ConvexMLP(ConvexPotential):
    """Input-convex multilayer perceptron on vectors (B, C).

    Args:
        in_channels: length of the vectors.
        hidden: width of every layer.
        depth: hidden layers after the first.
        activation: see `ConvexPotential`, as ``beta``, ``alpha``, ``heads``, ``constraint``,
            ``init`` and ``noise_range``.
        linear: add a free linear term to psi.
    """

    def __init__(
        self,
        in_channels: int = 1,
        hidden: int = 50,
        *,
        depth: int = 4,
        activation: Activation = "softplus",
        beta: float = 10.0,
        alpha: float = 0.0,
        heads: Literal["all", "last"] = "last",
        linear: bool = True,
        constraint: Constraint = "project",
        init: Init = "uniform",
        noise_range: tuple[float, float] | None = None,
    ) -> None:
        super().__init__(
            in_channels,
            [Layer(hidden)] * (depth + 1),
            dim=0,
            activation=activation,
            beta=beta,
            alpha=alpha,
            heads=heads,
            linear=linear,
            constraint=constraint,
            init=init,
            noise_range=noise_range,
        )
