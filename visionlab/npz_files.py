"""NumPy archives from anyone: no pickled objects, and damage told in one sentence."""

import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np


@contextmanager
def read_npz(path: str | Path) -> Iterator[Mapping[str, np.ndarray]]:
    """Open an ``.npz``: its arrays by name, each read anew, whole and against its checksum.

    ``np.load`` reads no further than the header of an array says, so that damage to this header
    passes for an array of another shape; and it leaves the files open that it cannot read.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no archive, damaged, or it holds Python objects.
    """
    with Path(path).open("rb") as file:
        with _told(path):
            archive = zipfile.ZipFile(file)
        yield _Arrays(archive, Path(path))


class _Arrays(Mapping[str, np.ndarray]):
    def __init__(self, archive: zipfile.ZipFile, path: Path) -> None:
        self._archive, self._path = archive, path
        self._places = {name.removesuffix(".npy"): name for name in archive.namelist()}

    def __getitem__(self, name: str) -> np.ndarray:
        place = self._places[name]
        with _told(self._path), self._archive.open(place) as member:
            array = np.lib.format.read_array(member, allow_pickle=False)
            if member.read(1):  # the checksum is compared once all has been read
                raise ValueError(f"'{name}' is longer than its header says")
            return array

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


@contextmanager
def _told(path: str | Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # whatever the headers of a damaged archive lead to
        first = (str(error).splitlines() or [type(error).__name__])[0]
        if "allow_pickle" in first:
            raise ValueError(f"{path} holds Python objects, which are not read: {first}") from error
        raise ValueError(f"{path} is damaged or no .npz archive: {first}") from error
