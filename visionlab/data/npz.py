"""NumPy archives as data: no pickled objects, and damage told in one sentence."""

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.lib.npyio import NpzFile


@contextmanager
def read_npz(path: str | Path) -> Iterator[NpzFile]:
    """Open an ``.npz``; every array that is read is held against its checksum.

    Raises:
        ValueError: no archive, damaged, or it holds Python objects.
    """
    try:
        with np.load(path, allow_pickle=False) as content:
            if not isinstance(content, NpzFile):
                raise ValueError("it holds a single array")
            yield content
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise ValueError(f"{path} is damaged or no .npz archive: {error}") from error
