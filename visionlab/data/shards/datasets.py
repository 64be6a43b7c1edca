"""Packed sets as data sets of the config: images with classes, and COCO."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from visionlab.data.annotations import coco_sample
from visionlab.data.decoding import UNREADABLE, decode_rgb
from visionlab.data.loading import UnreadableSampleError
from visionlab.data.samples import decode
from visionlab.data.shards.ahead import FetchAhead
from visionlab.data.shards.order import shuffled_order
from visionlab.data.shards.reading import Shards
from visionlab.data.shards.storage import ShardFolder


class ImageShards(Dataset[Any]):
    """Images of a packed folder, in place of `ImageFolder`: uint8 RGB with the class index.

    Args:
        root: local folder or fsspec URL that ``tools/pack.py`` has written.
        transform: function of a uint8 (3, H, W) tensor that gives images of one size.
        labelled: whether classes matter. True refuses a set with a single class.
        cache: local folder for the shards of a remote set; processes and ranks of a machine
            share it. Without one, each sample of a remote set is a range request.
        cache_gb: size of the cache in 10^9 bytes; unlimited if None.
        window: shards that are shuffled together; the whole set if None, which gives the order
            of an unpacked set, and makes a remote set come in as a whole at once.
        lanes: with a window, streams of shards that are read side by side; a multiple of the
            number of machines, so that each fetches its own share of the shards alone.
        draft: decode JPEGs at 1/2, 1/4 or 1/8 of their size, as long as the shorter side keeps
            this many px; at full size if None.
        storage_options: arguments of fsspec's file system, e.g. ``{anon: true}`` for ``s3://``.

    Raises:
        FileNotFoundError: no packed set there.
        ValueError: arguments that do not fit the set.
        DamagedDataError: the table of samples is damaged.
    """

    def __init__(
        self,
        root: str,
        *,
        transform: Callable[[Tensor], Tensor] | None = None,
        labelled: bool = True,
        cache: str | None = None,
        cache_gb: float | None = None,
        window: int | None = None,
        lanes: int = 8,
        draft: int | None = None,
        storage_options: Mapping[str, Any] | None = None,
    ) -> None:
        self.shards = _shards(root, cache, cache_gb, storage_options)
        self.classes = list(self.shards.index.classes)
        _need_kind(self.shards, "classification", "image_shards")
        if labelled and len(self.classes) < 2:
            raise ValueError(
                f"{root} holds {len(self.classes)} class; a classifier needs two. Give another "
                "set, or labelled=False for pre-training without labels"
            )
        self.transform, self.draft = transform, draft
        self.window, self.lanes = window, min(lanes, len(self.shards))
        self._check_order()

    def _check_order(self) -> None:
        if (self.window is not None and self.window < 1) or self.lanes < 1:
            raise ValueError(f"window={self.window}, lanes={self.lanes}: expected 1 or more")
        sizes = [p.size for p in self.shards.index.shards]
        held = sum(sizes)
        if self.window is not None:
            # a stretch that is read and the next one that is fetched, both with a cut shard
            held = min(held, 2 * (self.window + 1) * max(sizes))
        _check_cache(
            self.shards.folder,
            held,
            f"with window={self.window}",
            "Raise it, or choose a smaller window (none means the whole set)",
        )

    def __len__(self) -> int:
        return len(self.shards)

    def __getitem__(self, index: int) -> dict[str, Any]:
        record = self.shards[index]
        try:
            image = decode_rgb(record.image, self.draft)
        except UNREADABLE as error:
            raise UnreadableSampleError(record.source, error) from error
        if self.transform is not None:
            image = self.transform(image)
        return {"image": image, "label": torch.tensor(record.label)}

    def shuffled_order(self, seed: int, epoch: int) -> Tensor:
        """Order of an epoch; see `visionlab.data.shards.order`."""
        counts = [p.count for p in self.shards.index.shards]
        return shuffled_order(counts, seed=seed, epoch=epoch, window=self.window, lanes=self.lanes)

    def fetch_ahead(self, indices: list[int]) -> FetchAhead | None:
        """Fetches what a rank will read; None for a set that is at hand or has no cache."""
        folder, parts = self.shards.folder, self.shards.index.shards
        if folder.cache is None:
            return None
        stretch = (self.window or 1) * max(p.count for p in parts) * self.lanes
        share = max(len(indices), 1) / len(self)
        needed = np.searchsorted(self.shards.index.starts(), indices, side="right") - 1
        return FetchAhead(
            lambda s: folder.fetch(parts[s]), needed, horizon=max(1, round(stretch * share))
        )


class CocoShards(Dataset[Any]):
    """A packed COCO set, in place of `CocoDetection`: the same samples.

    Args:
        root: local folder or fsspec URL that ``tools/pack.py --coco`` has written.
        masks: also read instance masks.
        cache: local folder for the shards of a remote set; without one, each sample is a range
            request.
        cache_gb: size of the cache in 10^9 bytes; unlimited if None. The whole set must fit: the
            multi-task mixture draws from all of it at any time.
        storage_options: arguments of fsspec's file system.

    Raises:
        FileNotFoundError: no packed set there.
        ValueError: it holds no COCO set, or does not fit into the cache.
        DamagedDataError: the table of samples is damaged.
    """

    kind = "detection"

    def __init__(
        self,
        root: str,
        *,
        masks: bool = False,
        cache: str | None = None,
        cache_gb: float | None = None,
        storage_options: Mapping[str, Any] | None = None,
    ) -> None:
        self.shards = _shards(root, cache, cache_gb, storage_options)
        _need_kind(self.shards, "detection", "coco_shards")
        held = sum(p.size for p in self.shards.index.shards)
        _check_cache(self.shards.folder, held, "in no order", "Raise it, or leave cache out")
        self.classes = list(self.shards.index.classes)
        self._label = {c: i for i, c in enumerate(self.shards.index.category_ids)}
        self._masks = masks

    def __len__(self) -> int:
        return len(self.shards)

    def __getitem__(self, index: int) -> dict[str, Any]:
        record, meta = self.shards[index], json.loads(self.shards.meta(index))
        return coco_sample(
            decode(record.image, record.source),
            meta["entry"],
            meta["objects"],
            labels=self._label,
            classes=self.classes,
            masks=self._masks,
        )


def _shards(
    root: str, cache: str | None, cache_gb: float | None, options: Mapping[str, Any] | None
) -> Shards:
    limit = None if cache_gb is None else int(cache_gb * 1e9)
    return Shards(ShardFolder(root, cache=cache, cache_bytes=limit, storage_options=options))


def _check_cache(folder: ShardFolder, held: int, how: str, remedy: str) -> None:
    if folder.cache_bytes is not None and folder.cache_bytes < held:
        raise ValueError(
            f"cache_gb={folder.cache_bytes / 1e9:g} cannot hold the {held / 1e9:.3g} GB that "
            f"are read side by side {how}: shards would be fetched again and again. {remedy}"
        )


def _need_kind(shards: Shards, kind: str, name: str) -> None:
    if shards.index.kind != kind:
        other = "coco_shards" if name == "image_shards" else "image_shards"
        raise ValueError(
            f"{shards.folder.root} holds a {shards.index.kind} set, '{name}' reads "
            f"{kind}; use '{other}'"
        )
