"""The data module of image tasks: datasets by split, keyed loading, normalisation on the device."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import Dataset

from visionlab.data.loading import KeyedLoader

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class ImageData(L.LightningDataModule):
    """Loaders over ``datasets["train" | "val" | "test"]``.

    Batches are mappings with ``image``, ``label`` and ``index``; images travel as uint8 and
    become normalised floats on the device.

    Args:
        datasets: split -> dataset; ``train`` is needed for training.
        batch_size: per rank.
        num_workers: processes that decode, or ``"auto"``.
        mean: per channel, of images on a 0..1 scale.
        std: per channel, likewise.
        unreadable_limit: number of unreadable images before the run stops.

    Raises:
        ValueError: no dataset, an unknown split, or ``mean`` and ``std`` of other lengths.
    """

    seed: int = 0  # the run's, set by `visionlab.tasks.training`

    def __init__(
        self,
        datasets: Mapping[str, Dataset[Any]],
        *,
        batch_size: int = 256,
        num_workers: int | Literal["auto"] = 0,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        unreadable_limit: int = 10,
    ) -> None:
        super().__init__()
        if not datasets or set(datasets) - {"train", "val", "test"}:
            raise ValueError(
                f"datasets are {sorted(datasets)}; expected some of 'train', 'val', 'test'"
            )
        check_spread(mean, std)
        self.datasets = dict(datasets)
        self.batch_size, self.num_workers = batch_size, num_workers
        self.unreadable_limit = unreadable_limit
        self.mean, self.std = tuple(mean), tuple(std)

    def loader(self, split: str, *, shuffle: bool = False, drop_last: bool = False) -> KeyedLoader:
        """A loader over one split.

        Raises:
            ValueError: there is no such split.
        """
        if split not in self.datasets:
            raise ValueError(
                f"no dataset '{split}' among {sorted(self.datasets)}; add it to data.datasets"
            )
        return KeyedLoader(
            self.datasets[split],
            self.batch_size,
            seed=self.seed,
            shuffle=shuffle,
            drop_last=drop_last,
            num_workers=self.num_workers,
            unreadable_limit=self.unreadable_limit,
        )

    def train_dataloader(self) -> KeyedLoader:
        """Shuffled; an incomplete last batch is left out."""
        return self.loader("train", shuffle=True, drop_last=True)

    def val_dataloader(self) -> KeyedLoader | list[Any]:
        """In order; empty if there is no validation split."""
        return self.loader("val") if "val" in self.datasets else []

    def test_dataloader(self) -> KeyedLoader:
        """In order."""
        return self.loader("test")

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Normalise on the device."""
        return {**batch, "image": self.normalise(batch["image"])}

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 (B, C, H, W) to normalised float32; floats are taken as 0..1.

        Raises:
            ValueError: the images have another number of channels than mean and std.
        """
        return normalise(images, self.mean, self.std)


def check_spread(mean: Sequence[float], std: Sequence[float]) -> None:
    """Raise ValueError unless there is one positive ``std`` for each ``mean``."""
    if not std or len(mean) != len(std) or not all(s > 0 for s in std):
        raise ValueError(f"mean {list(mean)} and std {list(std)}: one positive std per channel")


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """uint8 (B, C, H, W) to normalised float32; floats are taken as 0..1.

    Raises:
        ValueError: the images have another number of channels than ``mean`` and ``std``.
    """
    if images.shape[1] != len(mean):
        raise ValueError(
            f"images have {images.shape[1]} channels, data.mean has {len(mean)} numbers"
        )
    scale = 255.0 if images.dtype == torch.uint8 else 1.0
    centre = torch.tensor(mean, device=images.device).view(1, -1, 1, 1) * scale
    spread = torch.tensor(std, device=images.device).view(1, -1, 1, 1) * scale
    return (images.float() - centre) / spread
