"""Decoders of the masked autoencoder: from visible tokens to the pixels of the hidden patches.

A decoder is chosen by its *plan*, plain sizes without weights; the autoencoder, which knows the
widths and the grid, calls ``plan.build``. No un-shuffle: every token gets its own position, and
the order is [prefix, visible, hidden], so the head runs on the hidden tokens alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import Mlp
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from visionlab.masking import DECODERS
from visionlab.masking.positions import initialize_linear_layers, sincos_positions
from visionlab.masking.targets import take

_norm: Any = partial(nn.LayerNorm, eps=1e-6)


@dataclass(frozen=True, kw_only=True)
class DecoderPlan:
    """Sizes of a decoder.

    Attributes:
        depth: blocks.
        dim: width.
        heads: attention heads.
        mlp_ratio: hidden width of the MLP over ``dim``.
    """

    depth: int
    dim: int
    heads: int
    mlp_ratio: float = 4.0

    def __post_init__(self) -> None:
        if self.depth < 1 or self.dim % 4 or self.dim % self.heads:
            raise ValueError(
                "a decoder has at least one block and a width divisible by 4 and by its heads, "
                "got "
                f"depth={self.depth}, dim={self.dim}, heads={self.heads}"
            )

    def build(self, *, in_dim: int, out_dim: int, grid: tuple[int, int]) -> "TokenDecoder":
        """The network, for encoder width ``in_dim`` and ``out_dim`` numbers per patch."""
        return SelfAttentionDecoder(self, in_dim, out_dim, grid)


@dataclass(frozen=True, kw_only=True)
class StandardDecoder(DecoderPlan):
    """The published decoder: 8 blocks of width 512, 16 heads."""

    depth: int = 8
    dim: int = 512
    heads: int = 16


@dataclass(frozen=True, kw_only=True)
class LightDecoder(DecoderPlan):
    """4 blocks of width 256: for small encoders and CPUs. It costs probe accuracy on ViT-B."""

    depth: int = 4
    dim: int = 256
    heads: int = 8


@dataclass(frozen=True, kw_only=True)
class CrossAttentionDecoder(DecoderPlan):
    """Hidden patches attend to the visible ones only (CrossMAE, Fu et al., 2024)."""

    depth: int = 8
    dim: int = 512
    heads: int = 16

    def build(self, *, in_dim: int, out_dim: int, grid: tuple[int, int]) -> "TokenDecoder":
        """See `DecoderPlan.build`."""
        return CrossDecoder(self, in_dim, out_dim, grid)


def as_decoder_plan(decoder: str | Mapping[str, Any] | DecoderPlan) -> DecoderPlan:
    """A decoder's name, a mapping with ``name`` and sizes, or a plan, as a plan."""
    if isinstance(decoder, DecoderPlan):
        return decoder
    if isinstance(decoder, str):
        return DECODERS.get(decoder)()
    if isinstance(decoder, Mapping) and "name" in decoder:
        sizes = {k: v for k, v in decoder.items() if k != "name"}
        return DECODERS.get(decoder["name"])(**sizes)
    raise TypeError(
        f"a decoder is a name ({', '.join(DECODERS.names())}), a mapping with 'name', or a "
        "DecoderPlan, "
        f"got {decoder!r}"
    )


class TokenDecoder(nn.Module):
    """Common parts: embedding, mask token, fixed positions, norm and head."""

    positions: Tensor

    def __init__(self, plan: DecoderPlan, in_dim: int, out_dim: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.plan, self.grid = plan, grid
        self.embed = nn.Linear(in_dim, plan.dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, plan.dim))
        self.register_buffer("positions", sincos_positions(grid, plan.dim).clone())
        self.blocks = nn.ModuleList([self.make_block() for _ in range(plan.depth)])
        self.norm = _norm(plan.dim)
        self.head = nn.Linear(plan.dim, out_dim)
        initialize_linear_layers(self)
        nn.init.normal_(self.mask_token, std=0.02)

    def make_block(self) -> nn.Module:
        """One block of the plan's sizes."""
        raise NotImplementedError

    def no_weight_decay(self) -> set[str]:
        """Parameters that an optimiser should not decay, by timm's convention."""
        return {"mask_token"}

    def forward(
        self, tokens: Tensor, ids_keep: Tensor, ids_target: Tensor, grid: tuple[int, int]
    ) -> Tensor:
        """Predict patches.

        Args:
            tokens: (B, prefix + K, in_dim), the encoder's output.
            ids_keep: (B, K), place of each visible token.
            ids_target: (B, T), places to predict.
            grid: (H, W) patches of these images.

        Returns:
            (B, T, out_dim).
        """
        table = self._table(grid)[None]
        visible = self.embed(tokens)
        prefix = visible.shape[1] - ids_keep.shape[1]
        places = F.pad(take(table, ids_keep), (0, 0, prefix, 0))  # prefix tokens have no place
        hidden = self.mask_token + take(table, ids_target)
        return self.head(self.norm(self.attend(visible + places, hidden)))

    def attend(self, visible: Tensor, hidden: Tensor) -> Tensor:
        """(B, prefix + K, dim) and (B, T, dim) -> (B, T, dim)."""
        raise NotImplementedError

    def _table(self, grid: tuple[int, int]) -> Tensor:
        if grid == self.grid:
            return self.positions
        return sincos_positions(grid, self.plan.dim).to(self.positions)


class SelfAttentionDecoder(TokenDecoder):
    """Transformer over visible and mask tokens together (He et al., CVPR 2022)."""

    def make_block(self) -> nn.Module:
        """One block of the plan's sizes."""
        plan = self.plan
        return Block(
            plan.dim, plan.heads, mlp_ratio=plan.mlp_ratio, qkv_bias=True, norm_layer=_norm
        )

    def attend(self, visible: Tensor, hidden: Tensor) -> Tensor:
        """See `TokenDecoder.attend`."""
        tokens = torch.cat([visible, hidden.to(visible.dtype)], 1)
        for block in self.blocks:
            tokens = block(tokens)
        return tokens[:, visible.shape[1] :]


class CrossDecoder(TokenDecoder):
    """Mask tokens read the visible tokens by cross-attention and never each other."""

    def make_block(self) -> nn.Module:
        """One block of the plan's sizes."""
        return CrossBlock(self.plan)

    def attend(self, visible: Tensor, hidden: Tensor) -> Tensor:
        """See `TokenDecoder.attend`."""
        for block in self.blocks:
            hidden = block(hidden, visible)
        return hidden


class CrossBlock(nn.Module):
    """Pre-norm cross-attention and MLP, both residual."""

    def __init__(self, plan: DecoderPlan) -> None:
        super().__init__()
        self.heads = plan.heads
        self.norm_query, self.norm_memory, self.norm_mlp = (_norm(plan.dim) for _ in range(3))
        self.query = nn.Linear(plan.dim, plan.dim)
        self.key_value = nn.Linear(plan.dim, 2 * plan.dim)
        self.proj = nn.Linear(plan.dim, plan.dim)
        self.mlp = Mlp(plan.dim, int(plan.dim * plan.mlp_ratio))

    def forward(self, hidden: Tensor, visible: Tensor) -> Tensor:
        """(B, T, dim) queries, (B, N, dim) memory -> (B, T, dim)."""
        query = self.query(self.norm_query(hidden))
        key, value = self.key_value(self.norm_memory(visible)).chunk(2, dim=-1)
        q, k, v = (t.unflatten(2, (self.heads, -1)).transpose(1, 2) for t in (query, key, value))
        read = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        hidden = hidden + self.proj(read)
        return hidden + self.mlp(self.norm_mlp(hidden))
