"""What a mask strategy returns: which patches stay visible, in the forms that models ask for."""

from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class MaskBatch:
    """Masks of one batch over a grid of L = H * W patches, K of them visible in every row.

    Attributes:
        hidden: (B, L) bool, True where a patch is hidden.
        keep: K, the number of visible patches.
        grid: (H, W).
        targets: for multi-block masks the patches of each target block, (B, targets, size) int64.
    """

    hidden: Tensor
    keep: int
    grid: tuple[int, int]
    targets: Tensor | None = field(default=None)

    @classmethod
    def from_scores(cls, scores: Tensor, keep: int, grid: tuple[int, int]) -> "MaskBatch":
        """Keep the ``keep`` largest scores of each row of (B, L): always exactly ``keep``."""
        visible = scores.topk(keep, dim=1, sorted=False).indices
        hidden = torch.ones(scores.shape, dtype=torch.bool, device=scores.device)
        return cls(hidden.scatter_(1, visible, False), keep, grid)

    @classmethod
    def from_hidden(cls, hidden: Tensor, grid: tuple[int, int]) -> "MaskBatch":
        """Take masks drawn elsewhere, (B, L) bool, True = hidden.

        Raises:
            ValueError: another shape or type, or rows that hide different numbers of patches.
        """
        patches = grid[0] * grid[1]
        if hidden.dtype != torch.bool or hidden.ndim != 2 or hidden.shape[1] != patches:
            raise ValueError(
                f"expected a bool mask of shape (B, {patches}), got {hidden.dtype} of shape "
                f"{tuple(hidden.shape)}"
            )
        keep = (~hidden).sum(1)
        low, high = (int(keep.min()), int(keep.max())) if len(keep) else (0, 0)
        if low != high:
            raise ValueError(
                "a batch keeps the same number of patches in every mask, "
                f"got {low} to {high} visible"
            )
        return cls(hidden, low, grid)

    @property
    def mask(self) -> Tensor:
        """(B, L) bool, True = hidden."""
        return self.hidden

    @cached_property
    def ids_restore(self) -> Tensor:
        """(B, L) int64: place of each patch in the order [visible, hidden], both ascending.

        ``torch.gather(torch.cat([visible, hidden], 1), 1, ids_restore)`` puts tokens back.
        Counting replaces the usual second sort.
        """
        before = self.hidden.cumsum(1)  # hidden patches up to and including this one
        place = torch.arange(self.hidden.shape[1], device=self.hidden.device)
        return torch.where(self.hidden, before + (self.keep - 1), place - before)

    @cached_property
    def _order(self) -> Tensor:
        place = torch.arange(self.hidden.shape[1], device=self.hidden.device)
        order = torch.empty_like(self.ids_restore)
        return order.scatter_(1, self.ids_restore, place.expand_as(order))

    @property
    def ids_keep(self) -> Tensor:
        """(B, K) int64, ascending: the visible patches."""
        return self._order[:, : self.keep]

    @property
    def ids_mask(self) -> Tensor:
        """(B, L - K) int64, ascending: the hidden patches."""
        return self._order[:, self.keep :]

    @property
    def visible(self) -> Tensor:
        """(B, H, W) bool, True = visible: the picture of the masks."""
        return ~self.hidden.view(-1, *self.grid)

    def __len__(self) -> int:
        return len(self.hidden)

    def to(self, device: torch.device | str) -> "MaskBatch":
        """The same masks on another device."""
        targets = None if self.targets is None else self.targets.to(device)
        return MaskBatch(self.hidden.to(device), self.keep, self.grid, targets)
