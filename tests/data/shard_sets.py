"""Small image folders and packed sets for the tests of shards."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from visionlab.data.shards.packing import pack
from visionlab.data.shards.sources import image_folder

COUNT, PER_SHARD = 41, 7
URL = "memory://bucket/set"


@pytest.fixture(autouse=True, scope="session")
def no_sync():
    """No power failure here; on a busy disk each sync takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


def make_folder(root: Path, count: int = COUNT, classes: int = 3) -> Path:
    """JPEGs (and one PNG) of 20 x 24 px in class folders."""
    rng = np.random.default_rng(0)
    for i in range(count):
        path = root / f"class{i % classes}" / (f"{i:03d}.png" if i == 5 else f"{i:03d}.JPEG")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (20, 24, 3), dtype=np.uint8)).save(path)
    return root


def make_packed(folder: Path, target: Path, **options) -> Path:
    """The folder, packed."""
    pack(image_folder(folder), target, **{"samples_per_shard": PER_SHARD, **options})
    return target


def copy_of(packed: Path, target: Path) -> Path:
    """A packed set to be damaged."""
    return Path(shutil.copytree(packed, target))


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def flip(path: Path, position: int, bit: int = 2) -> None:
    """Turn one bit of a file over."""
    data = bytearray(path.read_bytes())
    data[position] ^= 1 << bit
    path.write_bytes(data)


def crop(image: torch.Tensor) -> torch.Tensor:
    """A random crop and flip: draws from the keyed generator."""
    y, x, flipped = (int(torch.randint(0, n, ())) for n in (8, 12, 2))
    image = image[:, y : y + 12, x : x + 12]
    return image.flip(-1) if flipped else image
