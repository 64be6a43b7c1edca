"""Windowed attention for plain ViTs on large images (ViTDet, arXiv 2203.16527, Sec. 3).

Most blocks attend within windows of the patch grid, a few evenly spread ones over the whole
image, so that the cost grows linearly with the image. Parameters and their names stay those of the
ViT: its pre-trained weights fit, before or after.

Two things differ from the published code: padding takes no part in attention (there, padded
patches are attended to), so that a window over the whole image is exactly full attention; and
class and register tokens stay, where there are any: they attend to everything, and every window
attends to them. Relative position biases are left out.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from timm.layers import Attention
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from visionlab.backbones.protocol import num_prefix_tokens, patch_size


def windowed(
    backbone: nn.Module, window: int = 14, *, global_blocks: Sequence[int] | None = None
) -> VisionTransformer:
    """Give a ViT windowed attention, in place.

    Args:
        backbone: a timm VisionTransformer with plain attention.
        window: side of a window in patches.
        global_blocks: blocks that keep full attention; None takes the last of each quarter (2, 5,
            8, 11 of twelve).

    Raises:
        TypeError: the backbone is no such ViT.
        ValueError: a window of no patch, or a block that does not exist.

    Example:
        >>> from visionlab.backbones import create_backbone
        >>> vit = create_backbone("vit", img_size=64, patch_size=8, embed_dim=96, depth=4)
        >>> windowed(vit, 4).forward_features(torch.zeros(1, 3, 64, 64)).shape
        torch.Size([1, 65, 96])
    """
    if not isinstance(backbone, VisionTransformer):
        raise TypeError(
            f"windows need a timm VisionTransformer, got {type(backbone).__name__}; put them into "
            "the ViT before MoE layers, and choose one of list_backbones('vit_*')"
        )
    if window < 1:
        raise ValueError(f"window is {window} patches; expected at least 1 (the paper has 14)")
    depth = len(backbone.blocks)
    full = _quarters(depth) if global_blocks is None else list(global_blocks)
    if wrong := [i for i in full if not 0 <= i < depth]:
        raise ValueError(f"global_blocks names the blocks {wrong}, the ViT has 0..{depth - 1}")
    grid = _Grid(backbone)
    for i, block in enumerate(backbone.blocks):
        if i not in full:
            block.attn = WindowedAttention(_plain(block, i), window, grid)
    return backbone


def _quarters(depth: int) -> list[int]:
    return sorted({math.ceil(depth * k / 4) - 1 for k in (1, 2, 3, 4)})


def _plain(block: Any, number: int) -> Attention:
    attention = getattr(block, "attn", None)
    if type(attention) is not Attention:
        raise TypeError(
            f"block {number} has {type(attention).__name__} where windows need timm's plain "
            "Attention (no rotary or relative positions)"
        )
    return attention


class _Grid:
    """Patches per column and row of the images that are running through a ViT."""

    def __init__(self, backbone: VisionTransformer) -> None:
        self.patch = patch_size(backbone)
        self.prefix = num_prefix_tokens(backbone)
        self.size = (0, 0)
        self._trained: dict[int, set[tuple[int, int]]] = {}  # patches -> grids of that many
        # a bound method: a deep copy of the ViT copies the grid along with it
        backbone.patch_embed.register_forward_pre_hook(self.note)

    def note(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        height, width = inputs[0].shape[-2:]
        self.size = (height // self.patch[0], width // self.patch[1])
        if torch.is_grad_enabled():
            self._trained.setdefault(self.size[0] * self.size[1], set()).add(self.size)

    def of(self, tokens: int) -> tuple[int, int]:
        """Grid of the images that run now, or that a backward pass runs once more.

        Raises:
            ValueError: run once more, and their grid is not known.
        """
        if torch._C._current_graph_task_id() == -1:  # no backward pass
            return self.size
        found = sorted(self._trained.get(tokens - self.prefix, {self.size}))
        if len(found) > 1:  # several images may have come through since their forward pass
            raise ValueError(
                f"activations of windowed attention cannot be recomputed for images of the grids "
                f"{found}, which have equally many patches; train on one of them, or set "
                "trainer.activation_checkpointing=false"
            )
        return found[0]


class WindowedAttention(nn.Module):
    """timm's attention with patches that see their window and the prefix tokens.

    Args:
        attention: whose parameters are taken over, under their names.
        window: side of a window in patches.
        grid: where the ViT notes the size of its patch grid.
    """

    def __init__(self, attention: Attention, window: int, grid: _Grid) -> None:
        super().__init__()
        self.window, self.grid = window, grid
        self.num_heads, self.head_dim = attention.num_heads, attention.head_dim
        self.attn_dim = attention.num_heads * attention.head_dim
        self.qkv, self.q_norm, self.k_norm = attention.qkv, attention.q_norm, attention.k_norm
        self.attn_drop, self.norm = attention.attn_drop, attention.norm
        self.gate = getattr(attention, "gate", None)  # not in every timm
        self.proj, self.proj_drop = attention.proj, attention.proj_drop

    def forward(
        self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False
    ) -> Tensor:
        """Tokens (B, prefix + h*w, D) -> the same shape.

        Args:
            x: normed tokens.
            attn_mask: (B, 1, 1, prefix + h*w) bool, True = may be attended to.
            is_causal: not possible here.

        Raises:
            ValueError: the tokens are no whole image, or another kind of mask.
        """
        grid = self.grid.of(x.shape[1])
        self._check(x, grid, attn_mask, is_causal)
        gate = None if self.gate is None else self.gate(x).sigmoid()
        qkv = self.qkv(x).unflatten(2, (3, self.num_heads, self.head_dim)).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        mixed = self._mix(self.q_norm(q), self.k_norm(k), v, grid, attn_mask)
        mixed = self.norm(mixed.transpose(1, 2).flatten(2))
        return self.proj_drop(self.proj(mixed if gate is None else mixed * gate))

    def _check(
        self, x: Tensor, grid: tuple[int, int], mask: Tensor | None, is_causal: bool
    ) -> None:
        (h, w), prefix = grid, self.grid.prefix
        if x.shape[1] != prefix + h * w:
            raise ValueError(
                f"{x.shape[1]} tokens came to windowed attention, a whole image has "
                f"{prefix + h * w} (prefix {prefix}, grid {h}x{w}); masked pre-training needs the "
                "ViT without windows"
            )
        if is_causal or (mask is not None and mask.shape != (len(x), 1, 1, x.shape[1])):
            raise ValueError(
                "windowed attention takes masks of keys (B, 1, 1, tokens) and no causal ones, "
                f"got {'is_causal' if mask is None else tuple(mask.shape)}"
            )

    def _mix(
        self, q: Tensor, k: Tensor, v: Tensor, grid: tuple[int, int], mask: Tensor | None
    ) -> Tensor:
        """(B, heads, N, d): prefix queries see all keys, patches their window and the prefix."""
        prefix, (h, w), side = self.grid.prefix, grid, self.window
        pads = (-h % side, -w % side)
        windows = [split_windows(t[:, :, prefix:], (h, w), side) for t in (q, k, v)]
        count = windows[0].shape[1]
        keys, values = (
            torch.cat([t[:, None, :, :prefix].expand(-1, count, -1, -1, -1), wins], dim=3)
            for t, wins in ((k, windows[1]), (v, windows[2]))
        )
        seen = None
        if mask is not None or any(pads):
            seen = self._window_mask(mask, len(q), grid, q.device)
        patches = join_windows(self._attend(windows[0], keys, values, seen), (h, w), side)
        if not prefix:
            return patches
        return torch.cat([self._attend(q[:, :, :prefix], k, v, mask), patches], dim=2)

    def _window_mask(
        self, mask: Tensor | None, batch: int, grid: tuple[int, int], device: torch.device
    ) -> Tensor:
        """(B, windows, 1, 1, prefix + side^2) bool: keys of each window."""
        (h, w), prefix = grid, self.grid.prefix
        if mask is None:
            mask = torch.ones(batch, 1, 1, prefix + h * w, dtype=torch.bool, device=device)
        keys = mask[:, 0, 0, :, None, None].transpose(1, 2)  # (B, 1, tokens, 1)
        inside = split_windows(keys[:, :, prefix:], (h, w), self.window).flatten(2)
        first = keys[:, :, :prefix].flatten(1)[:, None].expand(-1, inside.shape[1], -1)
        seen = torch.cat([first, inside], dim=2)
        # a window of padding alone would divide by zero; nobody reads what it gives
        return (seen | ~seen.any(2, keepdim=True))[:, :, None, None]

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        dropout = self.attn_drop.p if self.training else 0.0
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)


def split_windows(tokens: Tensor, grid: tuple[int, int], side: int) -> Tensor:
    """Patches by window; at right and bottom zeros fill up the last windows.

    Args:
        tokens: (B, heads, h*w, d).
        grid: (h, w).
        side: of a window.

    Returns:
        (B, windows, heads, side^2, d).
    """
    maps = tokens.unflatten(2, grid)
    maps = F.pad(maps, (0, 0, 0, -grid[1] % side, 0, -grid[0] % side))
    rows, columns = maps.shape[2] // side, maps.shape[3] // side
    cut = maps.unflatten(3, (columns, side)).unflatten(2, (rows, side))
    return cut.permute(0, 2, 4, 1, 3, 5, 6).flatten(4, 5).flatten(1, 2)


def join_windows(windows: Tensor, grid: tuple[int, int], side: int) -> Tensor:
    """The inverse of `split_windows`: (B, windows, heads, side^2, d) -> (B, heads, h*w, d)."""
    rows, columns = (math.ceil(n / side) for n in grid)
    cut = windows.unflatten(1, (rows, columns)).unflatten(4, (side, side))
    maps = cut.permute(0, 3, 1, 4, 2, 5, 6).flatten(4, 5).flatten(2, 3)
    return maps[:, :, : grid[0], : grid[1]].flatten(2, 3)
