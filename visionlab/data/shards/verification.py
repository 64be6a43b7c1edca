"""Checks a packed set against its index, byte by byte."""

import hashlib
import tarfile
import zlib
from collections.abc import Callable
from typing import IO, Any

import numpy as np

from visionlab.data.loading import DamagedDataError
from visionlab.data.shards.index import Part
from visionlab.data.shards.reading import Shards
from visionlab.data.shards.storage import ShardFolder

_READ = 1 << 20


def verify(
    root: str,
    *,
    progress: Callable[[int, int], object] = lambda done, total: None,
    storage_options: dict[str, Any] | None = None,
) -> list[str]:
    """One line for each file and sample that is not what the index says; none if all is well.

    Args:
        root: local folder or fsspec URL.
        progress: told of samples that are checked.
        storage_options: arguments of fsspec's file system.

    Raises:
        FileNotFoundError: no index there.
        DamagedDataError: the table of samples is damaged.
        ValueError: the index is damaged.
    """
    shards = Shards(ShardFolder(root, storage_options=storage_options))
    problems: list[str] = []
    first = 0
    for part in shards.index.shards:
        try:
            with shards.folder.open(part) as file:
                problems += _shard_problems(shards, part, file, first)
        except DamagedDataError as error:
            problems.append(str(error))
        first += part.count
        progress(first, len(shards))
    return problems


def _shard_problems(shards: Shards, part: Part, file: IO[bytes], first: int) -> list[str]:
    place = shards.folder.place(part.name)
    digest = hashlib.sha256()
    while chunk := file.read(_READ):
        digest.update(chunk)
    changed = digest.hexdigest() != part.sha256
    bad = [
        f"{shards.source(number)}: the bytes of its {what} have changed"
        for number in range(first, first + part.count)
        for what in ("image", "meta")
        if _crc(file, shards.row(number), what) != shards.row(number)[f"{what}_crc"]
    ]
    if changed:
        count = f"{len(bad)} samples in it are" if bad else "no sample in it is, only padding is"
        return [f"{place} has changed since packing; {count} damaged: copy it again", *bad]
    return bad + _table_problems(shards, place, file, first, part.count)


def _crc(file: IO[bytes], row: np.void, what: str) -> int:
    file.seek(int(row[what]))
    return zlib.crc32(file.read(int(row[f"{what}_size"])))


def _table_problems(
    shards: Shards, place: str, file: IO[bytes], first: int, count: int
) -> list[str]:
    """Where the tar's own headers put the members, against the table."""
    file.seek(0)
    with tarfile.open(fileobj=file, mode="r:") as tar:
        found = [(m.name.partition(".")[0], m.offset_data, m.size) for m in tar]
    told = [
        (f"{n:08d}", int(shards.row(n)[w]), int(shards.row(n)[f"{w}_size"]))
        for n in range(first, first + count)
        for w in ("image", "meta")
    ]
    return [] if found == told else [f"{place}: the table of samples does not fit it; pack again"]
