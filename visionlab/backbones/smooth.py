"""Smooth convex activations that yield their value and their slope together."""

from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Activation = Literal["softplus", "squareplus"]


class SmoothActivation(torch.autograd.Function):
    """(s(a), s'(a)) of a convex increasing C1 function s; only s' is kept for the backward pass.

    Both choices have a second derivative that is a function of the slope p = s': beta p (1 - p) for
    softplus = log(1 + exp(beta a)) / beta, and 2 beta (p (1 - p))^1.5 for squareplus =
    (a + sqrt(a^2 + w^2)) / 2 with w = 2 / beta. They share the curvature beta / 4 at 0; squareplus
    costs a tenth on a CPU, where a logarithm takes longer than a convolution.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(a: Tensor, beta: float, name: str) -> tuple[Tensor, Tensor]:
        """Value and slope, of the shape of ``a``."""
        if name == "softplus":
            # torch's default threshold of 20 makes the slope jump by 2e-9: float64 checks see it
            return F.softplus(a, beta=beta, threshold=40.0), torch.sigmoid(a * beta)
        w2 = (2.0 / beta) ** 2
        inverse_root = (a * a).add_(w2).rsqrt_()
        slope = (a * inverse_root).mul_(0.5).add_(0.5)
        return inverse_root.mul_(0.5 * w2).addcmul_(a, slope), slope

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        """Keep the slope."""
        _, ctx.beta, ctx.name = inputs
        ctx.save_for_backward(output[1])
        ctx.save_for_forward(output[1])

    @staticmethod
    def backward(ctx: Any, g_value: Tensor, g_slope: Tensor) -> tuple[Tensor, None, None]:
        """Chain rule with the curvature as a function of the slope."""
        (slope,) = ctx.saved_tensors
        curvature = _curvature(slope, ctx.beta, ctx.name)
        return (curvature * g_slope).addcmul_(g_value, slope), None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _beta: None, _name: None) -> tuple[Tensor, Tensor]:
        """Forward mode."""
        (slope,) = ctx.saved_tensors
        return slope * tangent, _curvature(slope, ctx.beta, ctx.name) * tangent


def smooth(a: Tensor, beta: float, name: str) -> tuple[Tensor, Tensor]:
    """`SmoothActivation`; in plain operations while ``torch.compile`` traces, which fuses them."""
    if not torch.compiler.is_compiling():
        return SmoothActivation.apply(a, beta, name)
    if name == "softplus":
        return F.softplus(a, beta=beta, threshold=40.0), torch.sigmoid(a * beta)
    root = torch.sqrt(a * a + (2.0 / beta) ** 2)
    return 0.5 * (a + root), 0.5 * (a / root) + 0.5


def _curvature(slope: Tensor, beta: float, name: str) -> Tensor:
    product = torch.addcmul(slope, slope, slope, value=-1.0)
    if name == "softplus":
        return product.mul_(beta)
    product.clamp_(min=0.0)
    return product.sqrt().mul_(product).mul_(2.0 * beta)


ACTIVATIONS = ("softplus", "squareplus")
