"""MoE attention: experts own query and output projections, keys and values are shared.

Mod-Squad (arXiv 2212.08066), Sec. 3.2, after Mixture of Attention Heads (arXiv 2210.05144).
There every expert is one head and all share one key and value head. Here an expert may hold
several heads over as many shared key and value heads: with all heads of a trained attention in
each expert, sparse upcycling starts from an equal output.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visionlab.moe import fused, grouped, loop
from visionlab.moe.backends import resolve_backend
from visionlab.moe.dispatch import (
    collect,
    from_slots,
    make_plan,
    spread,
    to_slots,
    zero_unrouted,
)
from visionlab.moe.experts import AttentionExperts
from visionlab.moe.layer import MoEOutput, compute_dtype, flatten_tokens
from visionlab.moe.router import Routing
from visionlab.moe.structure import ExpertLayer, fresh_layout


class MoEAttention(ExpertLayer):
    """Self-attention whose query and output projections are chosen per token and task.

    Args:
        dim: D, width of a token.
        head_dim: width of one head.
        num_experts: E.
        top_k: k, experts per token; a token has k * heads query heads.
        heads: shared key and value heads, and query heads of one expert (1 = the paper).
        tasks: names; each gets its own router.
        backend: see `visionlab.moe.backends`.
        noise_std: see `visionlab.moe.router.TaskRouter`.
        normalize_gates: see `visionlab.moe.layer.MoELayer`.
        layout: see `visionlab.moe.layer.MoELayer`.
    """

    def __init__(
        self,
        dim: int,
        head_dim: int,
        num_experts: int,
        top_k: int,
        *,
        heads: int = 1,
        tasks: Sequence[str] = ("default",),
        backend: str = "auto",
        noise_std: float = 0.0,
        normalize_gates: bool | None = None,
        layout: Mapping[str, Any] | None = None,
    ) -> None:
        if head_dim < 1 or heads < 1:
            raise ValueError(f"head_dim and heads must be at least 1, got {head_dim} and {heads}")
        layout = fresh_layout(num_experts, top_k, tasks) if layout is None else layout
        normalize = top_k > 1 if normalize_gates is None else normalize_gates
        super().__init__(
            dim, layout=layout, normalize_gates=normalize, noise_std=noise_std, backend=backend
        )
        self.head_dim, self.heads, self.inner = head_dim, heads, head_dim * heads
        self.output_scale = float(top_k) if normalize else 1.0
        self.key_value = nn.Linear(dim, 2 * self.inner)
        nn.init.trunc_normal_(self.key_value.weight, std=0.02)
        nn.init.zeros_(self.key_value.bias)
        self._grow_from(layout)

    def new_block(self, experts: int) -> AttentionExperts:
        """Fresh attention experts."""
        return AttentionExperts(experts, self.dim, inner=self.inner, output_scale=self.output_scale)

    def forward(
        self, x: Tensor, task: str | None = None, *, token_mask: Tensor | None = None
    ) -> MoEOutput:
        """Attend.

        Args:
            x: (B, L, D).
            task: may be left out if the layer has one task.
            token_mask: (B, L) bool; tokens that are False are neither queries nor keys and give
                zeros.

        Raises:
            ValueError: as `MoELayer.forward`.
        """
        if x.ndim != 3:
            raise ValueError(f"attention needs tokens (B, L, D), got shape {tuple(x.shape)}")
        task, router = self.router(task)
        flat, mask = flatten_tokens(x, token_mask, self.dim)
        dtype = compute_dtype(x)
        backend = resolve_backend(
            self.backend, device=x.device, dtype=dtype, widths=(self.dim, self.inner)
        )
        weights = tuple(w.to(dtype) for w in self.weights_for(router))
        tokens = flat.to(dtype)

        def attend(queries: Tensor) -> Tensor:
            return self._attend(x.to(dtype), queries, token_mask)

        with torch.autocast(x.device.type, enabled=False):
            if backend in ("fused", "triton"):
                own = backend == "triton"
                y, logits, experts, gates = fused.attention(
                    tokens, router, weights, mask, attend, own=own
                )
            else:
                linear = (loop if backend == "loop" else grouped).expert_linear
                wq, bq, wo, bo = weights
                logits, experts, gates = router(flat)
                plan = make_plan(experts, wq.shape[0], mask)
                context = attend(to_slots(linear(spread(tokens, plan), wq, bq, plan), plan))
                rows = linear(from_slots(context, plan), wo, bo, plan)
                rows = zero_unrouted(rows * grouped.row_gates(gates, plan).to(dtype), plan)
                y = collect(rows, plan)
        routing = Routing(
            task, logits, experts, gates, self.num_experts, router.expert_of_column, mask, self.name
        )
        return MoEOutput(y.view(x.shape), routing)

    def _attend(self, x: Tensor, queries: Tensor, token_mask: Tensor | None) -> Tensor:
        """Queries (B*L, k, heads * head_dim) over the shared keys and values, same shape out."""
        (b, n, _), k = x.shape, queries.shape[1]
        w, c = self.key_value.weight.to(x.dtype), self.key_value.bias.to(x.dtype)
        key, value = F.linear(x, w, c).view(b, n, 2, self.heads, self.head_dim).unbind(2)
        # (B, heads, k * L, head_dim): the k queries of a token share their head's keys
        q = queries.view(b, n, k, self.heads, self.head_dim).permute(0, 3, 2, 1, 4)
        keep = None if token_mask is None else token_mask[:, None, None, :]
        out = F.scaled_dot_product_attention(
            q.flatten(2, 3), key.transpose(1, 2), value.transpose(1, 2), attn_mask=keep
        )
        out = out.view(b, self.heads, k, n, self.head_dim).permute(0, 3, 2, 1, 4)
        return out.reshape(b * n, k, self.inner)

    def extra_repr(self) -> str:
        """Sizes, for `print(model)`."""
        return (
            f"dim={self.dim}, heads={self.heads}x{self.head_dim}, experts={self.block_sizes}, "
            f"top_k={self.top_k}, backend={self.backend!r}"
        )
