"""The weights of experts, (experts, out, in), in blocks that are trained or frozen as one.

A layer starts with one block. `add_experts` appends another: requires_grad is per tensor, so
old experts can only stay untouched if new ones live in other tensors. (E, out, in) lets FSDP2
and expert parallelism shard dimension 0.
"""

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn


class ExpertBlock(nn.Module):
    """Base of a group of experts; every parameter has the expert as dimension 0."""

    @property
    def num_experts(self) -> int:
        """E of this block."""
        return next(self.parameters()).shape[0]

    def tensors(self) -> tuple[Tensor, ...]:
        """The parameters in the order in which the backends take them."""
        raise NotImplementedError

    def select(self, ids: Sequence[int]) -> Self:
        """A new block with some of the experts (weights copied, requires_grad kept)."""
        index = torch.tensor(list(ids), dtype=torch.int64)
        block = type(self).__new__(type(self))
        nn.Module.__init__(block)
        for name, p in self.named_parameters():
            chosen = p.detach().index_select(0, index.to(p.device))
            block.register_parameter(name, nn.Parameter(chosen, requires_grad=p.requires_grad))
        return block

    @staticmethod
    def weight(experts: int, out: int, inner: int, std: float = 0.02) -> nn.Parameter:
        """(experts, out, in), truncated normal as in timm's vision transformers."""
        return nn.Parameter(nn.init.trunc_normal_(torch.empty(experts, out, inner), std=std))

    @staticmethod
    def bias(experts: int, out: int) -> nn.Parameter:
        """(experts, out) zeros."""
        return nn.Parameter(torch.zeros(experts, out))


class MLPExperts(ExpertBlock):
    """Two-layer perceptrons with GELU.

    Args:
        experts: E.
        dim: D.
        hidden_dim: H of one expert.
        output_scale: factor on the initial spread of the second layer. k gates that sum to one
            shrink a sum of k experts; a factor k gives a fresh layer the output variance of the
            dense MLP of width k * H.
    """

    def __init__(
        self, experts: int, dim: int, *, hidden_dim: int, output_scale: float = 1.0
    ) -> None:
        super().__init__()
        self.w1 = self.weight(experts, hidden_dim, dim)
        self.b1 = self.bias(experts, hidden_dim)
        self.w2 = self.weight(experts, dim, hidden_dim, std=0.02 * output_scale)
        self.b2 = self.bias(experts, dim)

    def tensors(self) -> tuple[Tensor, ...]:
        """w1 (E, H, D), b1 (E, H), w2 (E, D, H), b2 (E, D)."""
        return self.w1, self.b1, self.w2, self.b2


class AttentionExperts(ExpertBlock):
    """Query and output projections; keys and values are shared by all experts of a layer."""

    def __init__(self, experts: int, dim: int, *, inner: int, output_scale: float = 1.0) -> None:
        super().__init__()
        self.wq = self.weight(experts, inner, dim)
        self.bq = self.bias(experts, inner)
        self.wo = self.weight(experts, dim, inner, std=0.02 * output_scale)
        self.bo = self.bias(experts, dim)

    def tensors(self) -> tuple[Tensor, ...]:
        """Wq (E, I, D), bq (E, I), Wo (E, D, I), bo (E, D)."""
        return self.wq, self.bq, self.wo, self.bo
