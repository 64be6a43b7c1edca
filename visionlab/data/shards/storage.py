"""Files of a packed set: from a local folder, or from any fsspec URL through a local cache."""

import glob
import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, TypeVar

import fsspec
from filelock import FileLock, Timeout
from fsspec.implementations.local import LocalFileSystem

from visionlab.atomic import UnwritableError, replacing
from visionlab.data.loading import DamagedDataError
from visionlab.data.shards.index import INDEX, Part, ShardIndex

log = logging.getLogger("visionlab")
T = TypeVar("T")

_CHUNK = 1 << 20
_ATTEMPTS = 3
_LOCK_TIMEOUT_S = 1800.0  # past any download of one shard: a bound, so that nothing waits forever


class _TransferError(DamagedDataError):
    """What arrived is not what was packed: worth another attempt."""


class ShardFolder:
    """The folder of a packed set.

    Args:
        root: local path, or a URL of fsspec (``s3://``, ``gs://``, ``https://``, ...).
        cache: local folder for whole shards of a remote set; without one, each sample is a
            range request.
        cache_bytes: size at which the shards used longest ago leave the cache; unlimited if None.
        storage_options: arguments of fsspec's file system, e.g. ``{"anon": True}``.

    Raises:
        FileNotFoundError: no index there.
        ValueError: no such protocol, or a cache for a local set.
    """

    def __init__(
        self,
        root: str,
        *,
        cache: str | Path | None = None,
        cache_bytes: int | None = None,
        storage_options: Mapping[str, Any] | None = None,
    ) -> None:
        self.root, self.options = str(root).rstrip("/"), dict(storage_options or {})
        filesystem, self._base = self._connect()
        self.local = isinstance(filesystem, LocalFileSystem)
        if self.local and cache is not None:
            raise ValueError(f"{root} is on this machine's disks; leave out 'cache'")
        self.cache = Path(cache) if cache is not None else None
        self.cache_bytes = cache_bytes

    def _connect(self) -> tuple[Any, str]:
        try:
            # fsspec keeps one file system per process, and a new one after a fork
            return fsspec.core.url_to_fs(self.root, **self.options)
        except ImportError as error:
            raise ValueError(
                f"{self.root}: {error}. For s3:// and gs://: pip install 'visionlab[remote]'"
            ) from error
        except ValueError as error:
            raise ValueError(f"{self.root}: {error}; give a folder or an fsspec URL") from error

    def place(self, name: str) -> str:
        """What to call a file in messages."""
        return f"{self.root}/{name}"

    def index(self) -> ShardIndex:
        """Read ``index.json``.

        Raises:
            FileNotFoundError: there is none.
            DamagedDataError: the server does not answer.
            ValueError: it cannot be used.
        """
        source = self.place(INDEX)

        def read() -> bytes:
            filesystem, base = self._connect()
            return filesystem.cat_file(f"{base}/{INDEX}")

        try:
            return ShardIndex.from_json(self.patiently(read, INDEX), source)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"no {source}; give a folder that tools/pack.py has finished (a run of it that "
                "was interrupted goes on when it is started again)"
            ) from error

    def open(self, part: Part) -> IO[bytes]:
        """A file for reading at any position; its size has been checked.

        Raises:
            DamagedDataError: it is missing, of another size or out of reach.
        """
        if self.local or self.cache is not None:
            return self._open_local(part)

        def connect() -> IO[bytes]:
            filesystem, base = self._connect()
            file = filesystem.open(f"{base}/{part.name}", "rb", cache_type="none")
            self._check_size(part, file.size)
            return file

        try:
            return self.patiently(connect, part.name)
        except FileNotFoundError as error:
            raise self._missing(part) from error

    def patiently(self, call: Callable[[], T], name: str) -> T:
        """The result of a call that reads the file ``name``; at a distance in several attempts.

        Raises:
            FileNotFoundError: there is no such file.
            DamagedDataError: it is not what it should be, or out of reach.
            UnwritableError: no space left here.
            OSError: anything else that a local disk says.
        """
        if self.local:
            return call()
        last: Exception | None = None
        for attempt in range(_ATTEMPTS):
            if attempt:
                time.sleep(attempt**2)  # 1, 4 s
            try:
                return call()
            except (FileNotFoundError, UnwritableError):
                raise
            except DamagedDataError as error:
                if not isinstance(error, _TransferError):
                    raise  # a shard that is not what it should be, or was tried often enough
                last = error
            except Exception as error:  # each backend raises its own kinds
                log.info("reading %s failed: %s", self.place(name), _short(error))
                last = error
        if isinstance(last, _TransferError):
            raise DamagedDataError(str(last)) from last
        raise DamagedDataError(
            f"{self.place(name)} could not be read in {_ATTEMPTS} attempts ({_short(last)}); "
            "look at the connection and at storage_options, then start the same command again"
        ) from last

    def _open_local(self, part: Part) -> IO[bytes]:
        for _ in range(_ATTEMPTS):
            path = Path(self._base, part.name) if self.local else self.fetch(part)
            try:
                file = path.open("rb", buffering=0)
            except FileNotFoundError as error:
                if self.local:
                    raise self._missing(part) from error
                continue  # another process made room just now
            try:
                self._check_size(part, os.fstat(file.fileno()).st_size)
            except DamagedDataError:
                file.close()
                raise
            return file
        raise DamagedDataError(
            f"{self.place(part.name)} left the cache {self.cache} while it was opened, "
            f"{_ATTEMPTS} times in a row; raise cache_gb"
        )

    def _missing(self, part: Part) -> DamagedDataError:
        return DamagedDataError(
            f"{self.place(part.name)} is missing, but {INDEX} lists it; copy it there, or run "
            "tools/pack.py again, which makes what is missing and keeps the rest"
        )

    def _check_size(self, part: Part, size: int | None) -> None:
        if size is not None and size != part.size:
            raise DamagedDataError(
                f"{self.place(part.name)} has {size} bytes, {INDEX} says {part.size}: truncated "
                "or of another set; copy it again, or run tools/pack.py again"
            )

    # ------------------------------------------------------------ cache

    def cached(self, part: Part) -> Path:
        """Where a part lies in the cache; its content is part of the name."""
        assert self.cache is not None
        return self.cache / f"{part.sha256[:16]}-{part.name}"

    def fetch(self, part: Part) -> Path:
        """The part in the cache, downloaded and checked if need be; any number of processes.

        Raises:
            DamagedDataError: missing, not what the index says, or out of reach.
            UnwritableError: no space left.
        """
        path = self.cached(part)
        if _whole(path, part):
            _touch(path)
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            # the system frees the lock of a process that dies
            with FileLock(path.with_name(f".{path.name}.lock"), timeout=_LOCK_TIMEOUT_S):
                if not _whole(path, part):
                    _remove_unfinished(path)
                    self._make_room(part.size)
                    self.patiently(lambda: self._download(part, path), part.name)
                    self._make_room(0)  # others have been fetching at the same time
        except FileNotFoundError as error:
            raise self._missing(part) from error
        except Timeout as error:
            raise DamagedDataError(
                f"another process has been fetching {self.place(part.name)} for "
                f"{_LOCK_TIMEOUT_S:.0f} s; look at the connection"
            ) from error
        return path

    def forget(self, part: Part) -> bool:
        """Drop a part from the cache, whose copy has gone bad; False if there is no cache."""
        if self.cache is None:
            return False
        self.cached(part).unlink(missing_ok=True)
        return True

    def _download(self, part: Part, path: Path) -> None:
        filesystem, base = self._connect()
        digest, size = hashlib.sha256(), 0
        with filesystem.open(f"{base}/{part.name}", "rb") as source, replacing(path) as target:
            while chunk := source.read(_CHUNK):
                digest.update(chunk)
                size += len(chunk)
                target.write(chunk)
            try:
                self._check_size(part, size)
            except DamagedDataError as error:
                raise _TransferError(str(error)) from error
            if digest.hexdigest() != part.sha256:
                raise _TransferError(
                    f"{self.place(part.name)} is damaged: its SHA-256 is not that of {INDEX}; "
                    "copy it there again (tools/pack.py --verify names all damaged files)"
                )

    def _make_room(self, size: int) -> None:
        if self.cache_bytes is None or self.cache is None:
            return
        with FileLock(self.cache / ".room.lock", timeout=_LOCK_TIMEOUT_S):
            kept = sorted(_shards_in(self.cache), key=lambda entry: entry[0])
            excess = sum(s for _, s, _ in kept) + size - self.cache_bytes
            for _, held, path in kept:
                if excess <= 0:
                    break
                path.unlink(missing_ok=True)  # a process that reads it keeps reading
                excess -= held


def _shards_in(cache: Path) -> Iterator[tuple[float, int, Path]]:
    """(time of last use, size, path) of each shard in a cache."""
    for path in cache.glob("[0-9a-f]*-*.tar"):
        with suppress(FileNotFoundError):  # another process made room
            status = path.stat()
            yield status.st_mtime, status.st_size, path


def _whole(path: Path, part: Part) -> bool:
    with suppress(FileNotFoundError):  # another process made room
        return path.stat().st_size == part.size
    return False


def _remove_unfinished(path: Path) -> None:
    """Remove what killed downloads of one file left; for the holder of its lock."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        left.unlink(missing_ok=True)


def _touch(path: Path) -> None:
    with suppress(FileNotFoundError):  # another process made room
        os.utime(path)


def _short(error: Exception | None) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:300]
