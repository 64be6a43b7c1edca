"""``index.json`` and ``samples.npy``: what a packed data set holds, and where each sample lies."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

FORMAT = "visionlab shards"
VERSION = 1
INDEX = "index.json"
SAMPLES = "samples.npy"
# offsets and sizes in bytes within the shard; CRC-32 of the bytes; label -1: none
ROW = np.dtype(
    [
        ("image", "<i8"),
        ("image_size", "<i4"),
        ("image_crc", "<u4"),
        ("meta", "<i8"),
        ("meta_size", "<i4"),
        ("meta_crc", "<u4"),
        ("label", "<i4"),
    ]
)

Kind = Literal["classification", "detection"]
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class Part:
    """One file of a packed set: its name, size in bytes, SHA-256 and number of samples."""

    name: str
    size: int
    sha256: str
    count: int


@dataclass(frozen=True)
class ShardIndex:
    """Content of ``index.json``.

    Args:
        kind: what the labels are.
        classes: names, in the order of the labels.
        shards: the tar files, in the order of the samples.
        samples: the table of places.
        packing: how the set was packed; for people, and to recognise the same set again.
        category_ids: COCO's ids of ``classes``.
    """

    kind: Kind
    classes: Sequence[str]
    shards: Sequence[Part]
    samples: Part
    packing: Mapping[str, Any] = field(default_factory=dict)
    category_ids: Sequence[int] = ()

    @property
    def count(self) -> int:
        """Number of samples."""
        return self.samples.count

    def starts(self) -> np.ndarray:
        """Number of the first sample of each shard, and the number of samples: (shards + 1,)."""
        return np.cumsum([0, *(s.count for s in self.shards)])

    def to_json(self) -> str:
        """The text of ``index.json``."""
        content = {"format": FORMAT, "version": VERSION, "count": self.count, **asdict(self)}
        return json.dumps({**content, "checksum": _checksum(content)}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, source: str) -> "ShardIndex":
        """Read ``index.json``.

        Args:
            text: its content.
            source: what to call it in messages.

        Raises:
            ValueError: no JSON, another format or version, changed by hand or damaged.
        """
        try:
            content = json.loads(text)
        except ValueError as error:
            raise ValueError(
                f"{source} is damaged or truncated ({error}); restore it, or delete the folder "
                "and pack the set again"
            ) from error
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ValueError(f"{source} is no index of packed shards; tools/pack.py writes one")
        if content.get("version") != VERSION:
            raise ValueError(
                f"{source} has version {content.get('version')}, this visionlab reads version "
                f"{VERSION}; pack the set again or use the visionlab that packed it"
            )
        claimed = content.pop("checksum", None)
        if claimed != _checksum(content):
            raise ValueError(
                f"{source} was changed or damaged after packing (its checksum differs); restore "
                "it, or delete the folder and pack the set again"
            )
        return cls._checked(content, source)

    @classmethod
    def _checked(cls, content: Mapping[str, Any], source: str) -> "ShardIndex":
        try:
            index = cls(
                kind=content["kind"],
                classes=list(content["classes"]),
                shards=[Part(**s) for s in content["shards"]],
                samples=Part(**content["samples"]),
                packing=content["packing"],
                category_ids=list(content["category_ids"]),
            )
            names = [p.name for p in (*index.shards, index.samples)]
            count = int(content["count"])
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"{source} lacks or misnames an entry ({error}); pack again"
            ) from error
        strange = [n for n in names if not _NAME.fullmatch(n)]
        if strange or len(set(names)) < len(names):
            raise ValueError(f"{source} names {strange or 'a file twice'}; expected plain names")
        if not index.count == count == sum(s.count for s in index.shards) or not count:
            raise ValueError(f"{source} holds no sample, or its counts disagree; pack again")
        return index


def _checksum(content: Mapping[str, Any]) -> str:
    plain = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(plain.encode()).hexdigest()
