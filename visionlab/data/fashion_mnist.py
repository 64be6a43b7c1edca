"""Fashion-MNIST (arXiv 1708.07747, MIT licence): 60,000 + 10,000 images, 28x28, 10 classes.

Found in this order: a local folder with the four ``.gz`` files; torchvision's download; Debian's
package ``dataset-fashion-mnist``, unpacked without root.
"""

import gzip
import logging
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
from torch import Tensor

from visionlab.data.arrays import ArrayImages

log = logging.getLogger("visionlab")

_FILES = [
    f"{split}-{kind}-ubyte.gz"
    for split in ("train", "t10k")
    for kind in ("images-idx3", "labels-idx1")
]
_PACKAGE = "dataset-fashion-mnist"
_TIMEOUT_S = 10


def fashion_mnist(
    root: str | Path = "data/fashion-mnist",
    *,
    split: Literal["train", "test"] = "train",
    limit: int | None = None,
    transform: Callable[[Tensor], Tensor] | None = None,
) -> ArrayImages:
    """Fashion-MNIST, fetched on first use.

    Args:
        root: folder of the four ``.gz`` files; filled if they are missing.
        split: ``"train"`` (60,000) or ``"test"`` (10,000).
        limit: take the first so many.
        transform: per-image function.

    Raises:
        FileNotFoundError: the files are not there and no source answers; says what was tried.
        ValueError: a file is truncated.
    """
    root = Path(root)
    _ensure_files(root)
    prefix = {"train": "train", "test": "t10k"}[split]
    images = _read(root / f"{prefix}-images-idx3-ubyte.gz", header=16).reshape(-1, 28, 28)
    labels = _read(root / f"{prefix}-labels-idx1-ubyte.gz", header=8)
    return ArrayImages(images[:limit], labels[:limit], transform=transform)


def _read(path: Path, header: int) -> np.ndarray:
    try:
        data = gzip.decompress(path.read_bytes())
    except (OSError, EOFError) as error:
        raise ValueError(f"{path} is truncated or no gzip file; delete it and run again") from error
    return np.frombuffer(data, np.uint8, offset=header)


def _ensure_files(root: Path) -> None:
    """Fill ``root`` with the four files if need be.

    Raises:
        FileNotFoundError: every source failed; the message lists what was tried.
    """
    if _complete(root):
        return
    tried = []
    for label, source in (
        ("torchvision's download", _from_torchvision),
        (f"Debian's package {_PACKAGE}", _from_debian),
    ):
        log.info("Fashion-MNIST is not in %s: trying %s", root, label)
        with tempfile.TemporaryDirectory() as scratch:
            try:
                found = source(Path(scratch))
            except (OSError, RuntimeError, subprocess.SubprocessError) as error:
                tried.append(f"{label}: {' '.join(str(error).split())[:200]}")
                continue
            _install(found, root)
            return
    raise FileNotFoundError(
        f"Fashion-MNIST was not found. Tried: the folder {root} (needs {', '.join(_FILES)}); "
        + "; ".join(tried)
        + ". Put the four files there by hand, or connect to a network and run again"
    )


def _complete(folder: Path) -> bool:
    return all((folder / name).is_file() for name in _FILES)


def _from_torchvision(scratch: Path) -> Path:
    from torchvision.datasets import FashionMNIST

    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT_S)
    try:
        FashionMNIST(str(scratch), download=True)
    finally:
        socket.setdefaulttimeout(before)
    return scratch / "FashionMNIST" / "raw"


def _from_debian(scratch: Path) -> Path:
    for tool in ("apt-get", "dpkg"):
        if shutil.which(tool) is None:
            raise OSError(f"{tool} is not installed (needs Debian or Ubuntu)")
    _run(["apt-get", "download", _PACKAGE], scratch)
    package = next(scratch.glob(f"{_PACKAGE}_*.deb"), None)
    if package is None:
        raise OSError("apt-get wrote no package")
    _run(["dpkg", "-x", package.name, "deb"], scratch)
    return scratch / "deb" / "usr" / "share" / "datasets" / "fashion-mnist"


def _run(command: list[str], folder: Path) -> None:
    result = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    if result.returncode:
        last = (result.stderr.strip().splitlines() or ["no message"])[-1]
        raise OSError(f"'{' '.join(command)}' failed: {last}")


def _install(found: Path, root: Path) -> None:
    if not _complete(found):
        raise FileNotFoundError(f"the source lacks some of {', '.join(_FILES)}")
    root.mkdir(parents=True, exist_ok=True)
    for name in _FILES:
        part = root / f".{name}.part"
        shutil.copyfile(found / name, part)
        part.replace(root / name)
