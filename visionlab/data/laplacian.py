"""Laplacian samples, whose prior |x| and prox (soft thresholding) are known in closed form."""

from collections.abc import Iterator
from typing import Any

import lightning as L
import torch
from torch import Tensor

from visionlab.data.loading import rank_and_world
from visionlab.data.randomness import mix

_GOLDEN = 0.6180339887498949  # the golden ratio less 1: multiples of it spread over [0, 1) evenly


class LaplacianBatches:
    """Batches of independent Laplacian numbers; each is a function of (seed, epoch, batch, rank).

    Args:
        batch_size: numbers per batch.
        batches: per epoch.
        scale: b in the density exp(-|x| / b) / 2b.
        seed: of the draws.
        lattice: spread the pairs of number and noise of a batch evenly over their distribution, so
            that gradients vary far less from batch to batch. A batch then holds its ``noise``.
    """

    def __init__(
        self,
        batch_size: int,
        batches: int,
        *,
        scale: float = 1.0,
        seed: int = 0,
        lattice: bool = False,
    ) -> None:
        if min(batch_size, batches) < 1 or scale <= 0:
            raise ValueError(
                f"batch_size and batches must be at least 1 and scale positive, got {batch_size}, "
                f"{batches} and {scale}"
            )
        self.batch_size, self.batches, self.scale, self.seed = batch_size, batches, scale, seed
        self.lattice = lattice
        self.epoch = 0
        self._next = 0

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        first, self._next = self._next % self.batches, 0
        for i in range(first, self.batches):
            self._position = i + 1
            rank, world = rank_and_world()  # each rank its own numbers
            key = mix(self.seed, self.epoch, i * world + rank)
            yield self.draw_lattice(key) if self.lattice else {"image": self.draw(key)}

    def draw(self, key: int) -> Tensor:
        """(batch_size, 1) numbers: the difference of two exponential ones is Laplacian."""
        generator = torch.Generator().manual_seed(key)
        pair = torch.empty(2, self.batch_size, 1).exponential_(generator=generator)
        return self.scale * (pair[0] - pair[1])

    def draw_lattice(self, key: int) -> dict[str, Tensor]:
        """``image`` and standard normal ``noise``, (batch_size, 1): a randomly shifted lattice.

        Each pair alone is a fair and independent draw of both (Cranley, Patterson 1976).
        """
        generator = torch.Generator().manual_seed(key)
        shift = torch.rand(2, generator=generator, dtype=torch.float64)
        i = torch.arange(self.batch_size, dtype=torch.float64)
        points = torch.stack([i / self.batch_size, i * _GOLDEN]) + shift[:, None]
        u, v = (points % 1).clamp(1e-12, 1 - 1e-12)
        image = (0.5 - u).sign() * torch.log1p(-2 * (u - 0.5).abs()) * self.scale
        return {"image": image.float()[:, None], "noise": torch.special.ndtri(v).float()[:, None]}

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning at the start of each epoch."""
        self.epoch = epoch

    def state_dict(self) -> dict[str, int]:
        """Position within the epoch."""
        return {"position": getattr(self, "_position", 0)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on at a saved position."""
        self._next = int(state["position"])


class LaplacianData(L.LightningDataModule):
    """Training and validation batches of 1-D Laplacian samples, (batch_size, 1).

    Args:
        batch_size: numbers per batch.
        batches: batches per epoch.
        scale: b in the density exp(-|x| / b) / 2b.
        lattice: of the training batches, see `LaplacianBatches`.
    """

    seed: int = 0  # the run's, set by `visionlab.tasks.training`

    def __init__(
        self,
        *,
        batch_size: int = 2000,
        batches: int = 1000,
        scale: float = 1.0,
        lattice: bool = False,
    ) -> None:
        super().__init__()
        self.batch_size, self.batches, self.scale = batch_size, batches, scale
        self.lattice = lattice

    def train_dataloader(self) -> Any:
        """Keyed batches, without end of data."""
        return LaplacianBatches(
            self.batch_size, self.batches, scale=self.scale, seed=self.seed, lattice=self.lattice
        )

    def val_dataloader(self) -> Any:
        """Four batches of another key."""
        return LaplacianBatches(self.batch_size, 4, scale=self.scale, seed=mix(self.seed, 0x7A1))
