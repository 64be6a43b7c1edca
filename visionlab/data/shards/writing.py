"""Writes one shard: a WebDataset tar of pictures and their JSON, the same bytes each time."""

import hashlib
import io
import json
import tarfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from PIL import Image

from visionlab.atomic import replacing, write_text
from visionlab.data.decoding import UNREADABLE
from visionlab.data.shards.sources import Sample

_BLOCK = 512


class SourceChangedError(ValueError):
    """A picture that was there when packing began."""


@dataclass(frozen=True)
class Encoding:
    """How pictures are stored.

    Args:
        shorter_side: resize to this many px, if larger; as they are if None.
        quality: JPEG quality of pictures that are encoded again, 1..100.
    """

    shorter_side: int | None = None
    quality: int = 90

    def __post_init__(self) -> None:
        if self.shorter_side is not None and self.shorter_side < 1:
            raise ValueError(f"shorter side {self.shorter_side} px; expected at least 1")
        if not 1 <= self.quality <= 100:
            raise ValueError(f"JPEG quality {self.quality}; expected 1..100")


def write_shard(
    target: Path, rows: range, samples: Sequence[Sample], root: Path, encoding: Encoding
) -> dict[str, Any]:
    """Write a shard and say what is in it.

    Args:
        target: the tar file.
        rows: numbers of the samples in the set.
        samples: what to pack, one for each number.
        root: folder of the pictures.
        encoding: how they are stored.

    Returns:
        ``size``, ``sha256``, ``rows`` (as in ``samples.npy``) and ``unreadable`` (paths of
        pictures that could not be decoded for resizing and were packed as they are).

    Raises:
        SourceChangedError: a picture is gone.
        OSError: no space left; no half shard stays behind.
    """
    table: list[list[int]] = []
    unreadable: list[str] = []
    with replacing(target) as file:
        writer = _Tar(file)
        for number, sample in zip(rows, samples, strict=True):
            data = _read(root / sample.path)
            try:
                data, suffix = encode(data, Path(sample.path).suffix.lower(), encoding)
            except UNREADABLE:
                unreadable.append(sample.path)  # the loader names and counts it, as unpacked
                suffix = Path(sample.path).suffix.lower()
            meta = json.dumps({"path": sample.path, "label": sample.label, **sample.meta})
            image = writer.add(f"{number:08d}{suffix}", data)
            table.append([*image, *writer.add(f"{number:08d}.json", meta.encode()), sample.label])
        size, sha256 = writer.finish()
    return {"size": size, "sha256": sha256, "rows": table, "unreadable": unreadable}


def write_record(record: dict[str, Any], path: Path) -> None:
    """Keep what `write_shard` returned."""
    write_text(json.dumps(record), path)


def encode(data: bytes, suffix: str, encoding: Encoding) -> tuple[bytes, str]:
    """Bytes and suffix to store: the picture as it is, or smaller, as JPEG.

    Raises:
        one of `UNREADABLE`: it cannot be decoded.
    """
    if encoding.shorter_side is None:
        return data, suffix
    with Image.open(io.BytesIO(data)) as file:
        short = min(file.size)
        if short <= encoding.shorter_side:
            file.load()  # a damaged one is found now
            return data, suffix
        scale = encoding.shorter_side / short
        size = (
            max(encoding.shorter_side, round(file.width * scale)),
            max(encoding.shorter_side, round(file.height * scale)),
        )
        small = file.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=encoding.quality)
    return buffer.getvalue(), ".jpg"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SourceChangedError(
            f"{path} cannot be read ({error.strerror}); it was there when packing began. Put it "
            "back, or pack into another folder"
        ) from error


class _Tar:
    """Appends members; knows where they lie and the SHA-256 of all."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._digest, self._size = file, hashlib.sha256(), 0

    def add(self, name: str, data: bytes) -> tuple[int, int, int]:
        """Offset, size and CRC-32 of the member's bytes."""
        member = tarfile.TarInfo(name)  # no time, no owner: equal input, equal bytes
        member.size = len(data)
        self._write(member.tobuf(tarfile.USTAR_FORMAT))
        offset = self._size
        self._write(data)
        self._write(bytes(-len(data) % _BLOCK))
        return offset, len(data), zlib.crc32(data)

    def finish(self) -> tuple[int, str]:
        """Size and SHA-256 of the whole."""
        self._write(bytes(-(self._size + 2 * _BLOCK) % tarfile.RECORDSIZE + 2 * _BLOCK))
        return self._size, self._digest.hexdigest()

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)
        self._size += len(data)
