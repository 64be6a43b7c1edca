"""Detection sets as they lie on disk: COCO JSON, Pascal VOC XML, YOLO text."""

import json
import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.datasets import VisionDataset

from visionlab.data.samples import (
    check_limit,
    class_index,
    class_names,
    detection_sample,
    half_open,
    need_file,
    need_folder,
    need_samples,
    read_image,
)

_PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
_NUMBER, _ID = (int, float), (int, str)
_COCO_FIELDS: dict[str, dict[str, tuple[type, ...]]] = {
    "images": {"id": _ID, "file_name": (str,), "height": _NUMBER, "width": _NUMBER},
    "annotations": {"image_id": _ID, "category_id": (int,), "bbox": (list,)},
    "categories": {"id": (int,), "name": (str,)},
}


class CocoDetection(VisionDataset):
    """COCO JSON with its image folder. Category ids with gaps become 0, 1, 2, ... in id order.

    Args:
        images: folder with the pictures.
        annotations: the ``instances_*.json``.
        masks: also read instance masks (polygons and uncompressed run lengths).
        limit: keep the first so many images; all if None.
    """

    kind = "detection"

    def __init__(
        self,
        images: str,
        annotations: str,
        *,
        masks: bool = False,
        limit: int | None = None,
    ) -> None:
        folder = need_folder(images, "COCO images")
        super().__init__(folder)
        path = need_file(annotations, "COCO annotations")
        content = _read_coco(path)
        categories = sorted(content["categories"], key=lambda c: c["id"])
        self.classes = [str(c["name"]) for c in categories]
        self.category_ids = [int(c["id"]) for c in categories]
        self._label = {c["id"]: i for i, c in enumerate(categories)}
        self._images = sorted(content["images"], key=lambda i: i["id"])[: check_limit(limit)]
        self._objects = _objects_of_images(content, self._label, path)
        self._masks = masks
        need_samples(len(self._images), path)
        missing = [i["file_name"] for i in self._images if not (folder / i["file_name"]).is_file()]
        if missing:
            raise FileNotFoundError(
                f"{path.name} lists {len(missing)} images that {folder} does not hold, first "
                f"'{missing[0]}'; give the folder of this very split"
            )

    def __len__(self) -> int:
        return len(self._images)

    def entries(self) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
        """COCO's own entry of each image, and those of its objects."""
        return [(i, self._objects.get(i["id"], [])) for i in self._images]

    def __getitem__(self, index: int) -> dict[str, Any]:
        entry = self._images[index]
        return coco_sample(
            read_image(Path(self.root) / entry["file_name"]),
            entry,
            self._objects.get(entry["id"], []),
            labels=self._label,
            classes=self.classes,
            masks=self._masks,
        )


def coco_sample(
    image: Tensor,
    entry: Mapping[str, Any],
    objects: Sequence[Mapping[str, Any]],
    *,
    labels: Mapping[int, int],
    classes: Sequence[str],
    masks: bool = False,
) -> dict[str, Any]:
    """A detection sample from COCO's own entries.

    Args:
        image: (3, H, W) uint8.
        entry: of ``images`` in the JSON.
        objects: those of ``annotations`` that belong to it.
        labels: category id -> label.
        classes: class names.
        masks: also make instance masks.

    Raises:
        ValueError: the picture has another size than the entry; boxes or labels out of range.
    """
    size = (int(image.shape[-2]), int(image.shape[-1]))
    if size != (entry["height"], entry["width"]):
        raise ValueError(
            f"{entry['file_name']} is {size[1]}x{size[0]} px, the JSON says "
            f"{entry['width']}x{entry['height']}; the boxes do not belong to this file"
        )
    xywh = np.array([o["bbox"] for o in objects], np.float32).reshape(-1, 4)
    drawn = None
    if masks:
        drawn = torch.stack(
            [torch.from_numpy(_instance_mask(o, size, entry["file_name"])) for o in objects]
            or [torch.zeros(size, dtype=torch.uint8)]
        )[: len(objects)]
    return detection_sample(
        image,
        np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1),
        [labels[o["category_id"]] for o in objects],
        classes=classes,
        source=entry["file_name"],
        crowd=[bool(o.get("iscrowd", 0)) for o in objects],
        masks=drawn,
    )


def _read_coco(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no JSON ({error}); give a COCO instances file") from error
    known = content if isinstance(content, dict) else {}
    missing = [k for k in _COCO_FIELDS if not isinstance(known.get(k), list)]
    if missing:
        raise ValueError(
            f"{path} lacks {', '.join(missing)}; a COCO instances file has lists of all three"
        )
    for name, fields in _COCO_FIELDS.items():
        _check_entries(content[name], name, fields, path)
    return content


def _check_entries(
    entries: list[Any], name: str, fields: dict[str, tuple[type, ...]], path: Path
) -> None:
    """Raise unless each entry has the fields that are read, and ids are given once."""
    for number, entry in enumerate(entries):
        for field, kinds in fields.items():
            if not isinstance(entry, dict) or not isinstance(entry.get(field), kinds):
                wanted = " or ".join(kind.__name__ for kind in kinds)
                raise ValueError(f"{path}: {name}[{number}] has no '{field}' ({wanted})")
        bbox = entry["bbox"] if name == "annotations" else [0, 0, 0, 0]
        if len(bbox) != 4 or not all(isinstance(v, _NUMBER) for v in bbox):
            raise ValueError(
                f"{path}: annotations[{number}] has the bbox {bbox}, expected 4 numbers"
            )
    ids = [e["id"] for e in entries] if "id" in fields else []
    if len(set(ids)) < len(ids):
        twice = next(i for i in ids if ids.count(i) > 1)
        raise ValueError(f"{path}: {name} has the id {twice} more than once")


def _objects_of_images(
    content: dict[str, Any], labels: dict[int, int], path: Path
) -> dict[int, list[dict[str, Any]]]:
    known = {i["id"] for i in content["images"]}
    objects = defaultdict(list)
    for entry in content["annotations"]:
        if entry["image_id"] not in known:
            raise ValueError(
                f"{path} annotates the image id {entry['image_id']}, which it does not list"
            )
        if entry["category_id"] not in labels:
            raise ValueError(
                f"{path} uses the category id {entry['category_id']}, which it does not list; "
                f"known: {sorted(labels)[:20]}"
            )
        objects[entry["image_id"]].append(entry)
    return objects


def _instance_mask(entry: Mapping[str, Any], size: tuple[int, int], source: str) -> np.ndarray:
    shape = entry.get("segmentation") or []
    if isinstance(shape, dict) and isinstance(shape.get("counts"), str):
        raise ValueError(
            f"annotation {entry.get('id')} holds compressed run lengths; convert them to "
            "polygons or to counts as a list of numbers"
        )
    try:
        return _filled(shape, size)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{source}: the segmentation of annotation {entry.get('id')} is neither polygons "
            f"x1, y1, x2, y2, ... nor run lengths of {size[1]}x{size[0]} px ({error})"
        ) from error


def _filled(shape: Any, size: tuple[int, int]) -> np.ndarray:
    """(H, W) uint8 from polygons or uncompressed run lengths (columns first, zeros first)."""
    import cv2

    if isinstance(shape, list):
        mask = np.zeros(size, np.uint8)
        for polygon in filter(len, shape):
            points = np.round(np.array(polygon, np.float64).reshape(-1, 2) - 0.5).astype(np.int32)
            cv2.fillPoly(mask, [points], 1)
        return mask
    runs = np.array(shape["counts"])
    flat = np.repeat(np.arange(len(runs)) % 2, runs).astype(np.uint8)
    return flat.reshape(size[::-1]).T.copy()


class VocDetection(VisionDataset):
    """Pascal VOC: ``JPEGImages``, ``Annotations``, ``ImageSets/Main/<split>.txt``.

    VOC counts pixels from 1 and includes the last one; boxes come out half open from 0. Objects
    marked difficult are returned as crowd: they neither train nor count, as in VOC's protocol.

    Args:
        root: the folder that holds the three.
        classes: class names; read from all annotations of the split, sorted, if None.
        split: name of the list in ``ImageSets/Main``.
    """

    kind = "detection"

    def __init__(
        self, root: str, classes: Sequence[str] | None = None, *, split: str = "train"
    ) -> None:
        super().__init__(need_folder(root, "Pascal VOC"))
        lists = Path(self.root) / "ImageSets" / "Main"
        lines = need_file(lists / f"{split}.txt", "VOC split").read_text().splitlines()
        self._names = [line.split()[0] for line in lines if line.strip()]
        need_samples(len(self._names), lists / f"{split}.txt")
        self._trees = [self._tree(name) for name in self._names]
        found = {o.findtext("name", "") for tree in self._trees for o in tree.iter("object")}
        if "" in found:
            raise ValueError(f"an object in {self.root}/Annotations has no <name>")
        self.classes = sorted(found) if classes is None else class_names(classes)

    def _tree(self, name: str) -> ET.Element:
        path = need_file(Path(self.root) / "Annotations" / f"{name}.xml", "VOC annotation")
        try:
            return ET.parse(path).getroot()
        except ET.ParseError as error:
            raise ValueError(f"{path} is no XML ({error})") from error

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> dict[str, Any]:
        name, tree = self._names[index], self._trees[index]
        stem = Path(self.root) / "JPEGImages" / name
        found = [p for s in _PICTURES if (p := stem.with_name(stem.name + s)).is_file()]
        image = read_image(found[0] if found else stem.with_name(f"{name}.jpg"))
        objects = list(tree.iter("object"))
        corners = [_corners(o, f"{name}.xml") for o in objects]
        return detection_sample(
            image,
            half_open(np.array(corners)),
            [class_index(o.findtext("name", ""), self.classes, f"{name}.xml") for o in objects],
            classes=self.classes,
            source=f"{name}.xml",
            crowd=[o.findtext("difficult", "0").strip() == "1" for o in objects],
        )


def _corners(entry: ET.Element, source: str) -> list[float]:
    texts = [entry.findtext(f"bndbox/{k}", "") for k in ("xmin", "ymin", "xmax", "ymax")]
    try:
        return [float(text) for text in texts]
    except ValueError as error:
        raise ValueError(
            f"{source}: the box of '{entry.findtext('name', '')}' has xmin, ymin, xmax, ymax = "
            f"{texts}, expected numbers"
        ) from error


class YoloDetection(VisionDataset):
    """YOLO text: for ``images/a.jpg`` a ``labels/a.txt`` of ``class cx cy w h``, in 0..1.

    An image without a text file, or with an empty one, has no objects.

    Args:
        images: folder with the pictures.
        labels: folder with the text files.
        classes: class names in the order of their numbers.
    """

    kind = "detection"

    def __init__(self, images: str, labels: str, *, classes: Sequence[str]) -> None:
        super().__init__(need_folder(images, "YOLO images"))
        self._labels = need_folder(labels, "YOLO labels")
        self.classes = class_names(classes)
        self._paths = sorted(p for p in Path(images).iterdir() if p.suffix.lower() in _PICTURES)
        need_samples(len(self._paths), images)
        stems = {p.stem for p in self._paths}
        strays = sorted(p.name for p in self._labels.glob("*.txt") if p.stem not in stems)
        if strays:
            raise FileNotFoundError(
                f"{len(strays)} label files in {labels} have no image in {images}, first "
                f"'{strays[0]}'; give the folders of one split"
            )

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        path = self._paths[index]
        text = self._labels / f"{path.stem}.txt"
        image = read_image(path)
        rows = _yolo_rows(text) if text.is_file() else np.zeros((0, 5))
        height, width = image.shape[-2:]
        centre, half = rows[:, 1:3], rows[:, 3:5] / 2
        boxes = np.concatenate([centre - half, centre + half], axis=1) * ([width, height] * 2)
        return detection_sample(
            image, boxes, rows[:, 0], classes=self.classes, source=str(text.name)
        )


def _yolo_rows(path: Path) -> np.ndarray:
    """(n, 5) float64."""
    try:
        lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
        if wrong := [line for line in lines if len(line) not in (0, 5)]:
            raise ValueError(f"one has {len(wrong[0])} values")
        return np.array([[float(v) for v in line] for line in lines if line]).reshape(-1, 5)
    except ValueError as error:
        raise ValueError(f"{path}: each line is 'class cx cy w h'; {error}") from error
