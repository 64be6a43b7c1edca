"""Task-conditioned routers: every task picks its own experts for a token.

Mod-Squad (arXiv 2212.08066), Sec. 3.1: one bias-free linear router per task and layer. Logits,
softmax and top-k run in float32 (float64 for float64 tokens) also under autocast.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Routing:
    """What one layer decided about the tokens of one forward pass.

    Attributes:
        task: whose router decided.
        logits: (N, C) float32, differentiable; C columns of the router. Holds the training noise.
        experts: (N, k) int64, best first.
        gates: (N, k) weights of the selected experts.
        num_experts: E, experts of the layer.
        expert_of_column: (C,) int64, -1 for a column whose expert was pruned.
        token_mask: (N,) bool, True = counts; None = all count.
        layer: name of the layer inside its model.
    """

    task: str
    logits: Tensor
    experts: Tensor
    gates: Tensor
    num_experts: int
    expert_of_column: Tensor
    token_mask: Tensor | None = None
    layer: str = ""

    def probabilities(self) -> Tensor:
        """p(e | x, t), (N, C): softmax over the columns that can be selected."""
        return self.selectable_logits().softmax(-1)

    def selectable_logits(self) -> Tensor:
        """(N, C) logits, -inf where the expert was pruned."""
        return self.logits.masked_fill(self.expert_of_column < 0, float("-inf"))

    def tokens(self) -> Tensor:
        """Number of tokens that count, () float32."""
        if self.token_mask is None:
            return self.logits.new_full((), float(self.logits.shape[0]))
        return self.token_mask.sum().to(self.logits.dtype)

    def probability_sum(self) -> Tensor:
        """Sum over the tokens of p(e | x, t), (E,), differentiable."""
        p = self.probabilities()
        if self.token_mask is not None:
            p = p * self.token_mask[:, None]
        return p.new_zeros(self.num_experts).index_add(
            0, self.expert_of_column.clamp(min=0), p.sum(0)
        )

    def mean_probability(self) -> Tensor:
        """q_t(e) = mean over the tokens of p(e | x, t), (E,), differentiable."""
        return self.probability_sum() / self.tokens().clamp(min=1)

    def counts(self) -> Tensor:
        """How often each expert was selected, (E,) float32."""
        chosen = torch.ones_like(self.experts, dtype=torch.float32)
        if self.token_mask is not None:
            chosen = chosen * self.token_mask[:, None]
        zeros = chosen.new_zeros(self.num_experts)
        return zeros.index_add(0, self.experts.flatten(), chosen.flatten())


class TaskRouter(nn.Module):
    """The router of one task: token -> k experts and their gates.

    After pruning it keeps all its columns and masks the dropped ones: cutting rows out of the
    weight would change the last bits of the other logits.

    Args:
        dim: width of a token.
        columns: global expert of each logit, -1 = dropped.
        top_k: experts per token.
        normalize: gates are a softmax over the k selected logits (experts that were not selected
            cannot change the output), else the probabilities of the full softmax.
        noise_std: standard deviation of the Gaussian added to the logits in training only.
    """

    expert_of_column: Tensor

    def __init__(
        self,
        dim: int,
        columns: Sequence[int],
        *,
        top_k: int,
        normalize: bool = True,
        noise_std: float = 0.0,
    ) -> None:
        super().__init__()
        if not 0 <= noise_std < math.inf:
            raise ValueError(f"noise_std must be 0 or a positive number, got {noise_std}")
        self.weight = nn.Parameter(torch.empty(len(columns), dim))
        # independent routers: equal ones are a stationary point of the mutual information
        nn.init.normal_(self.weight, std=0.02)
        self.register_buffer("expert_of_column", torch.tensor(list(columns), dtype=torch.int64))
        self.columns = [int(c) for c in columns]
        self.top_k = top_k
        self.normalize = normalize
        self.noise_std = noise_std
        self.check_top_k(top_k)

    @property
    def selectable(self) -> list[int]:
        """Global ids of the experts that this task may select."""
        return [c for c in self.columns if c >= 0]

    def check_top_k(self, top_k: int) -> None:
        """Raise ValueError unless 1 <= k <= selectable experts."""
        if not 1 <= top_k <= len(self.selectable):
            raise ValueError(
                f"top_k={top_k}, but the router can choose among {len(self.selectable)} experts; "
                f"pass a top_k from 1 to {len(self.selectable)}"
            )

    def remap(self, columns: Sequence[int]) -> None:
        """Point the columns to other experts (-1 = dropped), the weight stays."""
        self.columns = [int(c) for c in columns]
        self.expert_of_column = torch.tensor(
            self.columns, dtype=torch.int64, device=self.weight.device
        )
        self.check_top_k(self.top_k)

    def logits(self, x: Tensor) -> Tensor:
        """(N, D) tokens -> (N, C) logits in float32, noisy in training."""
        dtype = torch.promote_types(x.dtype, torch.float32)
        with torch.autocast(x.device.type, enabled=False):
            logits = F.linear(x.to(dtype), self.weight.to(dtype))
        if self.training and self.noise_std > 0:
            logits = logits + torch.randn_like(logits) * self.noise_std
        return logits

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(N, D) tokens -> logits (N, C), experts (N, k) int64, gates (N, k)."""
        logits = self.logits(x)
        candidates, whole = logits, self.columns == list(range(len(self.columns)))
        if not whole:
            candidates = logits.masked_fill(self.expert_of_column < 0, float("-inf"))
        values, chosen = candidates.topk(self.top_k, dim=-1)
        gates = values.softmax(-1) if self.normalize else logits.softmax(-1).gather(-1, chosen)
        return logits, chosen if whole else self.expert_of_column[chosen], gates
