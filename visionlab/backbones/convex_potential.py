"""Input-convex potentials with an explicit gradient (Fang et al. 2024, Eq. 3.2 and Prop. 3.1).

    a_0 = V_0 u + b_0,   a_k = W_k z_{k-1} + V_k P_k u + b_k,   z_k = s(a_k)
    psi(x) = sum_k sum over positions <h_k, z_k> + <c, x> + alpha ||x||^2,     u = P x

``s`` is convex, increasing and C1; W_k and h_k are nonnegative; V_k, b_k and c are free; P and P_k
are linear. So psi is convex in x at every size, and its gradient is the exact prox of some
function. The gradient is written out: using it needs no graph, training it needs first-order
autograd only, and jvp, vjp and ``torch.compile`` apply.

z_0 follows an affine map, so there ``s`` need not increase: ``first="energy"`` takes a^2 / 2, whose
slope is the filter's response itself. The layers above let a response pass where the energy around
it is high, which is shrinkage, and h_0 adds a linear filter. A slope between 0 and 1 has to build
both out of steps.

A noise level enters through free terms (scale of V_k, shift of b_k) and through positive scales of
h_k only, so psi is convex in x at each noise level.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from visionlab.backbones.noise_scales import NoiseScales
from visionlab.backbones.nonnegative import Constraint, Init, NonNegativeWeight
from visionlab.backbones.smooth import ACTIVATIONS, Activation, smooth

First = Literal["same", "energy"]

_CONV: dict[int, Any] = {0: F.linear, 1: F.conv1d, 2: F.conv2d}
_TRANSPOSED: dict[int, Any] = {1: F.conv_transpose1d, 2: F.conv_transpose2d}
_AXES = {0: (), 1: ("length",), 2: ("height", "width")}


class Layer(NamedTuple):
    """One layer of a convex stack.

    ``pool`` is the factor of P_k, by which u shrinks before V_k; kernel, stride and padding are
    those of W_k and V_k alike.
    """

    channels: int
    kernel: int = 1
    stride: int = 1
    padding: int = 0
    pool: int = 1


class ConvexPotential(nn.Module):
    """A stack of convex layers; subclasses choose the layers and P.

    Args:
        in_channels: channels of u.
        layers: the first has no W; its ``pool`` applies too.
        dim: 0 for vectors (B, C), 1 for signals (B, C, L), 2 for images (B, C, H, W).
        activation: ``"squareplus"`` or the paper's ``"softplus"``.
        first: activation of the first layer: the same (the paper), or ``"energy"``, a^2 / 2.
        beta: sharpness of the activation.
        alpha: psi is 2 alpha strongly convex.
        pooling: P_k averages whole blocks (``"mean"``) or the central 2 x 2 of each block
            (``"centre"``, what bilinear resizing without antialiasing does).
        heads: every layer contributes to psi (``"all"``) or the last one alone (``"last"``).
        linear: add the free term <c, x> (vectors only).
        constraint: see `NonNegativeWeight`.
        init: see `NonNegativeWeight`.
        noise_range: lowest and highest standard deviation; with it, the noise level is an input.
    """

    def __init__(
        self,
        in_channels: int,
        layers: Sequence[Layer],
        *,
        dim: int = 2,
        activation: Activation = "squareplus",
        first: First = "same",
        beta: float = 100.0,
        alpha: float = 1e-6,
        pooling: Literal["mean", "centre"] = "mean",
        heads: Literal["all", "last"] = "last",
        linear: bool = False,
        constraint: Constraint = "project",
        init: Init = "uniform",
        noise_range: tuple[float, float] | None = None,
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation is one of {sorted(ACTIVATIONS)}, got {activation!r}")
        if first not in ("same", "energy"):
            raise ValueError(f"first is 'same' or 'energy', got {first!r}")
        if dim not in _CONV:
            raise ValueError(f"dim is 0 (vectors), 1 (signals) or 2 (images), got {dim}")
        if heads not in ("all", "last"):
            raise ValueError(f"heads is 'all' or 'last', got {heads!r}")
        if not 0 < beta < math.inf or not 0 <= alpha < math.inf:
            raise ValueError(f"beta must be > 0 and alpha >= 0, got beta={beta}, alpha={alpha}")
        if not layers or min(in_channels, *(layer.channels for layer in layers)) < 1:
            raise ValueError(
                f"in_channels, hidden and the number of layers must be at least 1, got "
                f"{in_channels} and {[layer.channels for layer in layers]}"
            )
        self.layers, self.dim = tuple(layers), dim
        self.image_channels, self.minimum_size = in_channels, 1
        self.activation, self.beta, self.alpha, self.pooling = activation, beta, alpha, pooling
        self.first = first
        sizes = [layer.channels for layer in self.layers]
        kernels = [(layer.kernel,) * dim for layer in self.layers]
        make: dict[str, Any] = {"constraint": constraint, "init": init}
        self.inputs = nn.ModuleList(
            _free(in_channels, c, k) for c, k in zip(sizes, kernels, strict=True)
        )
        self.hidden = nn.ModuleList(
            NonNegativeWeight((c, b, *k), **make)
            for b, c, k in zip(sizes[:-1], sizes[1:], kernels[1:], strict=True)
        )
        with_head = range(len(sizes)) if heads == "all" else [len(sizes) - 1]
        self.heads = nn.ModuleDict(
            {str(k): NonNegativeWeight((1, sizes[k]), **make) for k in with_head}
        )
        self.linear = nn.Parameter(torch.zeros(in_channels)) if linear else None
        self.noise = NoiseScales(noise_range, sizes) if noise_range is not None else None
        if dim == 2:  # weights in channels-last order make every activation channels-last
            self.to(memory_format=torch.channels_last)

    @property
    def curvature(self) -> float:
        """Modulus of strong convexity that the structure guarantees: 2 alpha."""
        return 2.0 * self.alpha

    def value(self, x: Tensor, sigma: Tensor | None = None) -> Tensor:
        """psi(x), one number per sample: (B,)."""
        u = self._enter(x)
        value, _, _ = self._up(u, sigma, want_value=True)
        return value + self._simple_value(x)

    def gradient(self, x: Tensor, sigma: Tensor | None = None) -> Tensor:
        """Gradient of psi, of the shape of ``x``."""
        u = self._enter(x)
        _, slopes, scales = self._up(u, sigma, want_value=False)
        return self._simple_gradient(x) + self._leave(self._down(u, slopes, scales), x)

    def value_and_gradient(self, x: Tensor, sigma: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Both for the cost of the gradient and one activation."""
        u = self._enter(x)
        value, slopes, scales = self._up(u, sigma, want_value=True)
        gradient = self._simple_gradient(x) + self._leave(self._down(u, slopes, scales), x)
        return value + self._simple_value(x), gradient

    def check_shape(self, shape: Sequence[int]) -> None:
        """Raise ValueError unless inputs of this shape fit the potential."""
        wanted = ("batch", "channels", *_AXES[self.dim])
        if len(shape) != len(wanted) or shape[1] != self.image_channels:
            raise ValueError(
                f"expected ({', '.join(wanted)}) with {self.image_channels} channels, got a tensor "
                f"of shape {tuple(shape)}"
            )
        if any(n < self.minimum_size for n in shape[2:]):
            raise ValueError(
                f"this network needs at least {self.minimum_size} samples along each axis, got "
                f"{' x '.join(map(str, shape[2:]))}; pad the input or use fewer strides"
            )

    def _enter(self, x: Tensor) -> Tensor:
        """P x."""
        return x

    def _leave(self, gradient: Tensor, x: Tensor) -> Tensor:
        """P^T applied to a gradient with respect to u."""
        return gradient

    def _simple_value(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        value = self.alpha * flat.square().sum(1)
        return value if self.linear is None else value + flat @ self.linear

    def _simple_gradient(self, x: Tensor) -> Tensor:
        gradient = (2.0 * self.alpha) * x
        return gradient if self.linear is None else gradient + self.linear

    def _up(
        self, u: Tensor, sigma: Tensor | None, *, want_value: bool
    ) -> tuple[Tensor, list[Tensor], "_Scales"]:
        """Forward pass: psi without its simple terms, the slopes s'(a_k), the noise scales."""
        scales = self._scales(sigma)
        pooled = {f: self._pool(u, f) for f in {layer.pool for layer in self.layers}}
        value, z, slopes = u.new_zeros(u.shape[0]), u, []
        for k, layer in enumerate(self.layers):
            a = self._affine(pooled[layer.pool], k, scales)
            if k:
                a = a.add_(self._convolve(z, self.hidden[k - 1](), layer))
            if k == 0 and self.first == "energy":
                z, slope = 0.5 * a * a, a
            else:
                z, slope = smooth(a, self.beta, self.activation)
            slopes.append(slope)
            if want_value and str(k) in self.heads:
                value = value + (z * self._head(k, scales)).flatten(1).sum(1)
        return value, slopes, scales

    def _down(self, u: Tensor, slopes: list[Tensor], scales: "_Scales") -> Tensor:
        """Transposed pass: the gradient of psi, without its simple terms, with respect to u."""
        gradients: dict[int, Tensor] = {}
        d: Tensor | None = None
        for k in range(len(self.layers) - 1, -1, -1):
            if d is not None:
                above = self.layers[k + 1]
                size = slopes[k].shape[2:]
                d = self._transpose(d, self.hidden[k](), above, size)
            if str(k) in self.heads:
                head = self._head(k, scales)
                d = head if d is None else d + head
            assert d is not None
            d = d * slopes[k]
            layer = self.layers[k]
            pooled = [n // layer.pool for n in u.shape[2:]]
            free = d if scales is None else d * self._spread(scales[k][0])
            part = self._transpose(free, self._free_weight(k), layer, pooled)
            known = gradients.get(layer.pool)
            gradients[layer.pool] = part if known is None else known + part
        total = torch.zeros_like(u)
        for factor, part in gradients.items():
            total = total + self._unpool(part, factor)
        return total

    def _scales(self, sigma: Tensor | None) -> "_Scales":
        if self.noise is None:
            return None
        if sigma is None:
            raise ValueError("this potential takes a noise level: pass sigma of shape (B,)")
        return self.noise(sigma)

    def _affine(self, pooled: Tensor, k: int, scales: "_Scales") -> Tensor:
        bias: Tensor | None = getattr(self.inputs[k], "bias")  # noqa: B009
        if scales is None:
            return self._convolve(pooled, self._free_weight(k), self.layers[k], bias)
        scale, shift, _ = scales[k]
        free = self._convolve(pooled, self._free_weight(k), self.layers[k])
        return free * self._spread(scale) + self._spread(shift if bias is None else shift + bias)

    def _free_weight(self, k: int) -> Tensor:
        return self.inputs[k].get_parameter("weight")

    def _head(self, k: int, scales: "_Scales") -> Tensor:
        head = self.heads[str(k)]()
        return self._spread(head if scales is None else head * scales[k][2])

    def _spread(self, per_channel: Tensor) -> Tensor:
        return per_channel.reshape(*per_channel.shape, *(1,) * self.dim)

    def _convolve(
        self, x: Tensor, weight: Tensor, layer: Layer, bias: Tensor | None = None
    ) -> Tensor:
        if self.dim == 0:
            return F.linear(x, weight, bias)
        return _CONV[self.dim](x, weight, bias, layer.stride, layer.padding)

    def _transpose(self, g: Tensor, weight: Tensor, layer: Layer, size: Sequence[int]) -> Tensor:
        """Adjoint of `_convolve` for inputs of spatial ``size``."""
        if self.dim == 0:
            return g @ weight
        extra = [(n + 2 * layer.padding - layer.kernel) % layer.stride for n in size]
        return _TRANSPOSED[self.dim](g, weight, None, layer.stride, layer.padding, extra)

    def _pool(self, u: Tensor, factor: int) -> Tensor:
        if factor == 1:
            return u
        single = u.reshape(-1, 1, *u.shape[2:])
        pooled = _CONV[self.dim](single, self._window(u, factor), None, factor)
        return pooled.reshape(*u.shape[:2], *pooled.shape[2:])

    def _unpool(self, g: Tensor, factor: int) -> Tensor:
        """Adjoint of `_pool`."""
        if factor == 1:
            return g
        single = g.reshape(-1, 1, *g.shape[2:])
        spread = _TRANSPOSED[self.dim](single, self._window(g, factor), None, factor)
        return spread.reshape(*g.shape[:2], *spread.shape[2:])

    def _window(self, like: Tensor, factor: int) -> Tensor:
        window = like.new_zeros(factor)
        width = factor if self.pooling == "mean" else 2
        start = (factor - width) // 2
        window[start : start + width] = 1.0 / width
        if self.dim == 1:
            return window[None, None]
        return (window[:, None] * window)[None, None]


_Scales = list[tuple[Tensor, Tensor, Tensor]] | None


def _free(inputs: int, outputs: int, kernel: tuple[int, ...]) -> nn.Module:
    """A free affine map; used for its parameters alone."""
    if not kernel:
        return nn.Linear(inputs, outputs)
    return (nn.Conv1d, nn.Conv2d)[len(kernel) - 1](inputs, outputs, kernel)  # type: ignore[arg-type]
