"""Files that are at any moment the old one or the new one, whole."""

import errno
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

log = logging.getLogger("visionlab")

_PART = ".part"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_UNWRITABLE = _FULL | {errno.EROFS}  # nothing that is read says so
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}


class UnwritableError(OSError):
    """A file of our own cannot be written; the message says where and what to do."""


@contextmanager
def replacing(path: str | Path, *, keep: Path | None = None) -> Iterator[IO[bytes]]:
    """Open a file that takes the place of ``path`` once it is complete and on the disk.

    Args:
        path: the file; its folder is made if need be.
        keep: further name for the file that is replaced (a hard link: no bytes are copied).

    Raises:
        UnwritableError: the disk is full or not writable; ``path`` is what it was.
        OSError: whatever else the body raises, as it is.

    Example:
        >>> with replacing("notes.txt") as file:  # doctest: +SKIP
        ...     file.write(b"whole or not at all")
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=_PART)
    except OSError as error:
        raise _explained(error, path) from error
    part, own = Path(name), True
    try:
        with os.fdopen(handle, "wb") as file:
            own = False  # the body may read from a network, whose errors speak for themselves
            yield file
            own = True
            file.flush()
            os.fsync(file.fileno())
        part.chmod(0o644)
        second = _second_name(path, keep) if keep is not None and path.exists() else None
        part.replace(path)
        if keep is not None and second is not None:
            second.replace(keep)  # last: at no moment are both names one file
        _sync_folder(path.parent)
    except OSError as error:
        if own or error.errno in _UNWRITABLE:
            raise _explained(error, path) from error
        raise
    finally:
        part.unlink(missing_ok=True)


def write_text(text: str, path: str | Path) -> None:
    """Write a text file that is at any moment the old one or the new one, whole.

    Raises:
        UnwritableError: as for `replacing`.
    """
    with replacing(path) as file:
        file.write(text.encode())


def remove_leftovers(folder: Path) -> None:
    """Remove unfinished files that a killed process left in ``folder``."""
    for part in folder.glob(f".*{_PART}"):
        part.unlink(missing_ok=True)


def _second_name(path: Path, keep: Path) -> Path | None:
    """A hard link of ``path`` that will become ``keep``; None where the disk has no links."""
    second = keep.with_name(f".{keep.name}{_PART}")
    second.unlink(missing_ok=True)
    try:
        os.link(path, second)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        log.info("%s is not kept: no hard links on this file system (%s)", keep, error.strerror)
        return None
    return second


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power failure; Windows opens no folders."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def explain_full(error: BaseException, folder: Path) -> OSError | None:
    """What to do, if ``error`` tells of a full disk while something else was written; else None."""
    if not isinstance(error, OSError) or error.errno not in _FULL:
        return None
    return OSError(
        f"{folder} cannot be written to ({error.strerror}); what was saved is whole. Free some "
        "space and start the same command again"
    )


def _explained(error: OSError, path: Path) -> UnwritableError:
    folder = next((p for p in path.parents if p.is_dir()), Path())
    free = shutil.disk_usage(folder).free / 2**20
    return UnwritableError(
        f"could not write {path} ({error.strerror or error}; {free:.0f} MB are free there); what "
        "stood there before is intact. Free some space or choose another output folder"
    )
