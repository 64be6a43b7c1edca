"""Samples of a packed set by their number; every byte that is read is checked."""

import hashlib
import io
import logging
import os
import zlib
from collections import OrderedDict
from typing import IO, Any, NamedTuple

import numpy as np

from visionlab.data.loading import DamagedDataError, UnreadableSampleError
from visionlab.data.shards.index import ROW, Part
from visionlab.data.shards.storage import ShardFolder

log = logging.getLogger("visionlab")

_OPEN_FILES = 64  # per process


class Record(NamedTuple):
    """A sample as packed: the bytes of the picture, its label (-1: none), what to call it."""

    image: bytes
    label: int
    source: str


class Shards:
    """A packed set, sample by sample; may be forked and pickled.

    Args:
        folder: where it lies.

    Raises:
        FileNotFoundError: no index there.
        DamagedDataError: the table of samples is missing or damaged.
        ValueError: the index cannot be used.

    Example:
        >>> shards = Shards(ShardFolder("data/shards/train"))  # doctest: +SKIP
        >>> shards[0].source, len(shards[0].image)  # doctest: +SKIP
        ('data/shards/train/shard-00000.tar/00000000.jpg', 109527)
    """

    def __init__(self, folder: ShardFolder) -> None:
        self.folder = folder
        self.index = folder.index()
        self._starts = self.index.starts()
        self._files: OrderedDict[int, IO[bytes]] = OrderedDict()
        self._owner = os.getpid()
        self._table = self._read_table()

    def _read_table(self) -> np.ndarray:
        part, source = self.index.samples, self.folder.place(self.index.samples.name)
        with self.folder.open(part) as file:
            data = file.read()
        if hashlib.sha256(data).hexdigest() != part.sha256:
            raise DamagedDataError(
                f"{source} is damaged: its SHA-256 is not that of the index; copy it again, or "
                "run tools/pack.py again"
            )
        # in memory, not mapped: a file that is cut off while it is mapped kills its readers
        table = np.load(io.BytesIO(data), allow_pickle=False)
        if table.dtype != ROW or len(table) != self.index.count:
            raise DamagedDataError(f"{source} is no table of {self.index.count} samples")
        return table

    def __len__(self) -> int:
        return self.index.count

    def __getitem__(self, number: int) -> Record:
        """A sample.

        Raises:
            IndexError: no such number.
            DamagedDataError: its shard is missing or truncated.
            UnreadableSampleError: its bytes have changed since packing, and not in the cache alone.
        """
        row = self.row(number)
        data = self._read(number, row["image"], row["image_size"], row["image_crc"])
        return Record(data, int(row["label"]), self.source(number))

    def meta(self, number: int) -> bytes:
        """The JSON text beside a sample; raises as ``shards[number]`` does."""
        row = self.row(number)
        return self._read(number, row["meta"], row["meta_size"], row["meta_crc"])

    def source(self, number: int) -> str:
        """What to call a sample in messages."""
        return f"{self.folder.place(self.part_of(number).name)}/{number:08d}"

    def part_of(self, number: int) -> Part:
        """The shard that holds a sample."""
        return self.index.shards[self.shard_of(number)]

    def shard_of(self, number: int) -> int:
        """Position of that shard."""
        return int(np.searchsorted(self._starts, number, side="right")) - 1

    def row(self, number: int) -> np.void:
        """Entry of the table; see `visionlab.data.shards.index.ROW`."""
        if not 0 <= number < len(self):
            raise IndexError(f"no sample {number} in {self.folder.root}, it holds {len(self)}")
        return self._table[number]

    def _read(self, number: int, offset: Any, size: Any, crc: Any) -> bytes:
        data = self._bytes(number, offset, size)
        if zlib.crc32(data) == crc:
            return data
        part = self.part_of(number)
        if self.folder.forget(part):  # a disk of this machine has turned a bit
            log.warning("%s: damaged in the cache, fetched again", self.folder.place(part.name))
            self._files.pop(self.shard_of(number)).close()
            data = self._bytes(number, offset, size)
        if zlib.crc32(data) != crc:
            raise UnreadableSampleError(
                self.source(number),
                "its bytes have changed since packing; run tools/pack.py --verify "
                f"{self.folder.root}",
            )
        return data

    def _bytes(self, number: int, offset: Any, size: Any) -> bytes:
        shard = self.shard_of(number)

        def read() -> bytes:
            file = self._file(shard)
            try:
                file.seek(int(offset))
                return file.read(int(size))
            except Exception:  # a connection that broke is not used again
                self._files.pop(shard).close()
                raise

        name = self.part_of(number).name
        try:
            data = self.folder.patiently(read, name)
        except OSError as error:
            raise DamagedDataError(f"{self.folder.place(name)} cannot be read: {error}") from error
        if len(data) != size:
            raise DamagedDataError(
                f"{self.folder.place(name)} ends before sample {number}: "
                "it was truncated while it was read; copy it again"
            )
        return data

    def _file(self, shard: int) -> IO[bytes]:
        if os.getpid() != self._owner:  # forked: a shared file position would be a race
            self.close()
            self._owner = os.getpid()
        file = self._files.pop(shard, None) or self.folder.open(self.index.shards[shard])
        self._files[shard] = file  # the most recently used comes last
        if len(self._files) > _OPEN_FILES:
            self._files.popitem(last=False)[1].close()
        return file

    def close(self) -> None:
        """Close the files that this process holds open."""
        while self._files:
            self._files.popitem()[1].close()

    def __del__(self) -> None:
        if hasattr(self, "_files"):  # not after a constructor that raised
            self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["folder"])  # type: ignore[misc]
