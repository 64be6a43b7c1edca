"""Rows of a run on disk while it lasts, so that a killed run goes on where it stopped."""

import json
import logging
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self, TextIO

log = logging.getLogger("visionlab")

Row = dict[str, Any]


class Journal:
    """Append-only file: the settings in the first line, then a row a line, each with its CRC-32.

    A context manager. From the first line on that is torn or damaged, rows are made again.

    Args:
        path: of the file; if it is there, its rows are taken over.
        settings: everything that the rows depend on.

    Raises:
        ValueError: the file belongs to a run with other settings.
    """

    def __init__(self, path: str | Path, settings: Mapping[str, Any]) -> None:
        self.path = Path(path)
        self.rows: list[Row] = []
        head = json.dumps(dict(settings), sort_keys=True)
        if self.path.is_file():
            self._take_over(head)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file: TextIO = open(self.path, "a", encoding="utf-8")  # noqa: SIM115
        if not self.path.stat().st_size:
            self._file.write(_line(head))
            self._file.flush()

    def append(self, row: Row) -> None:
        """Add a row; it survives a kill of the process from here on."""
        self._file.write(_line(json.dumps(row)))
        self._file.flush()
        self.rows.append(row)

    def delete(self) -> None:
        """Remove the file, once the results are stored elsewhere."""
        self._file.close()
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def _take_over(self, head: str) -> None:
        """Read back what is whole; the rest is cut off."""
        data = self.path.read_bytes()
        lines: list[str] = []
        size = 0
        for line in data.splitlines(keepends=True):
            text = _checked(line)
            if text is None:
                break
            lines.append(text)
            size += len(line)
        if b"\n" in data[size:]:
            log.info(
                "%s is damaged after %d rows; the others are made again", self.path, len(lines)
            )
        if size < len(data):
            with open(self.path, "r+b") as file:
                file.truncate(size)
        if lines and lines[0] != head:
            raise ValueError(
                f"{self.path} was left by a run with other settings "
                f"({_difference(lines[0], head)}); finish that run, or overwrite it"
            )
        self.rows = [json.loads(line) for line in lines[1:]]


def _line(text: str) -> str:
    return f"{text}\t{zlib.crc32(text.encode()):08x}\n"


def _checked(line: bytes) -> str | None:
    """The text of a line; None if it is not what was written."""
    text, _, checksum = line.rpartition(b"\t")
    return text.decode() if checksum == b"%08x\n" % zlib.crc32(text) else None


def _difference(first: str, second: str) -> str:
    old, new = json.loads(first), json.loads(second)
    changed = [k for k in sorted({*old, *new}) if old.get(k) != new.get(k)]
    return ", ".join(f"{k} {old.get(k)!r} then, {new.get(k)!r} now" for k in changed)
