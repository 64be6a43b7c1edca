"""What is packed: the samples of an image folder or of a COCO set, in a keyed order.

No torch here: packing processes start fast.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from visionlab.data.shards.index import Kind

# the suffixes that torchvision's ImageFolder takes, in its order of listing
PICTURES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


class Sample(NamedTuple):
    """One picture to pack: path below the root, label (-1: none), what its JSON says besides."""

    path: str
    label: int
    meta: Mapping[str, Any]


@dataclass(frozen=True)
class Source:
    """All pictures of a set, as listed.

    Args:
        root: folder of the pictures.
        kind: what the labels are.
        classes: names.
        samples: the pictures.
        category_ids: COCO's ids of the classes.
    """

    root: Path
    kind: Kind
    classes: Sequence[str]
    samples: Sequence[Sample]
    category_ids: Sequence[int] = ()

    def fingerprint(self) -> str:
        """SHA-256 of names, sizes and labels: what tells two sets apart without reading them."""
        digest = hashlib.sha256(json.dumps([self.kind, list(self.classes)]).encode())
        for sample in self.samples:
            size = (self.root / sample.path).stat().st_size
            row = [sample.path, size, sample.label, sample.meta]
            digest.update(json.dumps(row, sort_keys=True).encode())
        return digest.hexdigest()

    def order(self, seed: int | None) -> list[int]:
        """Positions of the samples in the order of packing; as listed if ``seed`` is None."""
        if seed is None:
            return list(range(len(self.samples)))
        keys = [hashlib.sha256(f"{seed}:{i}".encode()).digest() for i in range(len(self.samples))]
        return sorted(range(len(keys)), key=keys.__getitem__)  # the same with any NumPy


def image_folder(root: Path) -> Source:
    """``root/CLASS/.../IMAGE``: the samples of `visionlab.data.ImageFolder`, in its order.

    Raises:
        FileNotFoundError: no folder, no class folders or no pictures.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"no folder {root}; give an image folder: SOURCE/CLASS/IMAGE.jpg")
    classes = sorted(p.name for p in root.iterdir() if p.is_dir())
    samples: list[Sample] = []
    for label, name in enumerate(classes):
        meta = {"class": name}  # one for all of them: a million samples stay small
        samples += [Sample(p, label, meta) for p in _pictures(root, name)]
    if not samples:
        raise FileNotFoundError(
            f"{root} holds no pictures in class folders; expected {root}/CLASS/IMAGE.jpg "
            "(for a COCO set give --coco instances.json, too)"
        )
    held = {s.label for s in samples}
    empty = [name for label, name in enumerate(classes) if label not in held]
    if empty:
        raise FileNotFoundError(
            f"{len(empty)} class folders of {root} hold no picture, first '{empty[0]}'; fill or "
            "remove them"
        )
    return Source(root, "classification", classes, samples)


def _pictures(root: Path, folder: str) -> Iterator[str]:
    """Paths below ``root`` of the pictures in a folder, in torchvision's order."""
    for place, _, names in sorted(os.walk(root / folder, followlinks=True)):
        for name in sorted(names):
            if name.lower().endswith(PICTURES):
                yield os.path.relpath(os.path.join(place, name), root)


def coco(root: Path, annotations: Path) -> Source:
    """A COCO set: the samples of `visionlab.data.CocoDetection`, in its order.

    Raises:
        FileNotFoundError: no folder, no JSON, or pictures that are missing.
        ValueError: the JSON is none, or disagrees with itself.
    """
    from visionlab.data.annotations import CocoDetection

    read = CocoDetection(str(root), str(annotations))
    samples = [
        Sample(entry["file_name"], -1, {"entry": entry, "objects": objects})
        for entry, objects in read.entries()
    ]
    return Source(root, "detection", read.classes, samples, read.category_ids)


def shard_rows(count: int, samples_per_shard: int) -> list[range]:
    """Samples of each shard, of equal number but for the last.

    Raises:
        ValueError: fewer than one sample in a shard.
    """
    if samples_per_shard < 1:
        raise ValueError(f"{samples_per_shard} samples in a shard; expected at least 1")
    starts = np.arange(0, count, samples_per_shard)
    return [range(int(s), min(int(s) + samples_per_shard, count)) for s in starts]
