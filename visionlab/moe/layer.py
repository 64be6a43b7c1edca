"""The MoE MLP layer: stands where a transformer block has its MLP.

layer = MoELayer(384, 384, num_experts=16, top_k=4, tasks=("cls", "seg"))
output, routing = layer(tokens, task="seg")
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from visionlab.moe import fused, grouped, loop
from visionlab.moe.backends import resolve_backend
from visionlab.moe.dispatch import make_plan
from visionlab.moe.experts import MLPExperts
from visionlab.moe.router import Routing
from visionlab.moe.structure import ExpertLayer, fresh_layout


class MoEOutput(NamedTuple):
    """Tokens and the decisions behind them."""

    output: Tensor
    routing: Routing


class MoELayer(ExpertLayer):
    """Dropless mixture of MLP experts with one router per task.

    y[n] = sum over the k selected experts e of gate[n, e] * (W2_e gelu(W1_e x[n] + b1_e) + b2_e)

    Args:
        dim: D, width of a token.
        hidden_dim: H, hidden width of one expert; k * H is the width of the dense MLP with the
            same FLOPs.
        num_experts: E.
        top_k: k, experts per token.
        tasks: names; each gets its own router.
        backend: "auto", or one of `visionlab.moe.BACKENDS` to force it.
        noise_std: Gaussian noise on the router logits, in training only.
        normalize_gates: gates are the softmax over the k selected logits (default for k > 1),
            else full-softmax probabilities (default for k = 1, where a normalised gate would be
            constant and its router would learn nothing from the task).
        layout: structure of a layer after surgery (`layer.layout`); replaces num_experts, top_k
            and tasks.

    Raises:
        ValueError: k > E, an unknown backend, a bad task name.

    Example:
        >>> layer = MoELayer(32, 64, num_experts=4, top_k=2, tasks=("cls", "seg"))
        >>> layer(torch.randn(2, 9, 32), task="seg").output.shape
        torch.Size([2, 9, 32])
    """

    def __init__(
        self,
        dim: int,
        hidden_dim: int,
        num_experts: int,
        top_k: int,
        *,
        tasks: Sequence[str] = ("default",),
        backend: str = "auto",
        noise_std: float = 0.0,
        normalize_gates: bool | None = None,
        layout: Mapping[str, Any] | None = None,
    ) -> None:
        if hidden_dim < 1:
            raise ValueError(f"hidden_dim must be at least 1, got {hidden_dim}")
        layout = fresh_layout(num_experts, top_k, tasks) if layout is None else layout
        normalize = top_k > 1 if normalize_gates is None else normalize_gates
        super().__init__(
            dim, layout=layout, normalize_gates=normalize, noise_std=noise_std, backend=backend
        )
        self.hidden_dim = hidden_dim
        self.output_scale = float(top_k) if normalize else 1.0
        self._grow_from(layout)

    def new_block(self, experts: int) -> MLPExperts:
        """Fresh MLP experts."""
        return MLPExperts(
            experts, self.dim, hidden_dim=self.hidden_dim, output_scale=self.output_scale
        )

    def forward(
        self, x: Tensor, task: str | None = None, *, token_mask: Tensor | None = None
    ) -> MoEOutput:
        """Route and transform tokens.

        Args:
            x: (..., D).
            task: may be left out if the layer has one task.
            token_mask: (...) bool; tokens that are False go to no expert, count in no statistic
                and give zeros.

        Raises:
            ValueError: unknown task, wrong width or mask, or a forced backend that cannot run.
        """
        task, router = self.router(task)
        flat, mask = flatten_tokens(x, token_mask, self.dim)
        weights = self.weights_for(router)
        dtype = compute_dtype(x)
        backend = resolve_backend(
            self.backend, device=x.device, dtype=dtype, widths=(self.dim, self.hidden_dim)
        )
        with torch.autocast(x.device.type, enabled=False):
            cast = tuple(w.to(dtype) for w in weights)
            if backend in ("fused", "triton"):
                own = backend == "triton"
                y, logits, experts, gates = fused.mlp(flat.to(dtype), router, cast, mask, own=own)
            else:
                module = loop if backend == "loop" else grouped
                logits, experts, gates = router(flat)
                plan = make_plan(experts, weights[0].shape[0], mask)
                y = module.expert_mlp(flat.to(dtype), gates, plan, cast)
        routing = Routing(
            task, logits, experts, gates, self.num_experts, router.expert_of_column, mask, self.name
        )
        return MoEOutput(y.view(x.shape), routing)

    def extra_repr(self) -> str:
        """Sizes, for `print(model)`."""
        return (
            f"dim={self.dim}, hidden_dim={self.hidden_dim}, experts={self.block_sizes}, "
            f"top_k={self.top_k}, backend={self.backend!r}"
        )


def compute_dtype(x: Tensor) -> torch.dtype:
    """The dtype of the products: autocast's where it is on, else the tokens' own."""
    kind = x.device.type
    if x.dtype != torch.float64 and torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return x.dtype


def flatten_tokens(x: Tensor, token_mask: Tensor | None, dim: int) -> tuple[Tensor, Tensor | None]:
    """Tokens (N, D) and mask (N,).

    Raises:
        TypeError: tokens that are no floats.
        ValueError: the width or the shape of the mask is wrong.
    """
    if not isinstance(x, Tensor) or not x.is_floating_point():
        kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"expected tokens as a tensor of floats, got {kind}")
    if not x.ndim or x.shape[-1] != dim:
        raise ValueError(f"the layer was built for tokens of width {dim}, got {tuple(x.shape)}")
    if token_mask is None:
        return x.reshape(-1, dim), None
    if token_mask.shape != x.shape[:-1] or token_mask.dtype != torch.bool:
        raise ValueError(
            f"token_mask must be bool of shape {tuple(x.shape[:-1])}, got {token_mask.dtype} of "
            f"shape {tuple(token_mask.shape)}"
        )
    return x.reshape(-1, dim), token_mask.reshape(-1)
