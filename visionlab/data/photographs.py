"""Random crops of photographs: a local folder, or those that scikit-image and scikit-learn ship.

The packages are only searched for files, never imported. Their photographs are not bundled here;
single images have their own terms (see datasets.md).
"""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import Dataset

from visionlab.data.randomness import mix

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
# photographs only: no drawings, microscopy or text, and no faces of lfw_subset
_PACKAGED = {
    "scikit-image": (
        "skimage",
        "data",
        (
            *("astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png"),
            *("coins.png", "grass.png", "gravel.png", "ihc.png", "motorcycle_left.png"),
            *("motorcycle_right.png", "rocket.jpg"),
        ),
    ),
    "scikit-learn": ("sklearn", "datasets/images", ("china.jpg", "flower.jpg")),
}


class PhotographCrops(Dataset[Any]):
    """Square crops of a few photographs held in memory, turned and mirrored at random.

    A photograph is drawn with a chance proportional to its area. Each one is also there at lower
    resolution (``scales``), which makes a small collection go further.

    Args:
        source: a folder (searched recursively), or ``"scikit-image"`` or ``"scikit-learn"`` for
            the photographs that these packages carry.
        size: side of a crop in pixels.
        length: crops per epoch.
        channels: 1 (gray) or 3 (RGB).
        scales: factors by which each photograph is also reduced; those smaller than a crop are
            left out.
        fixed: index alone determines the crop, unturned: for validation.

    Raises:
        FileNotFoundError: no such folder or package, or no photograph of that size in it.
    """

    def __init__(
        self,
        source: str | Path = "scikit-image",
        *,
        size: int = 64,
        length: int = 4096,
        channels: Literal[1, 3] = 1,
        scales: Sequence[float] = (1.0, 0.75, 0.5),
        fixed: bool = False,
    ) -> None:
        if min(size, length) < 1 or not scales or not 0 < min(scales) <= max(scales) <= 1:
            raise ValueError(
                f"size and length must be at least 1 and scales in (0, 1], got {size}, {length} "
                f"and {list(scales)}"
            )
        photographs = [_read(path, channels) for path in photograph_files(source)]
        self.images = [
            reduced
            for photograph in photographs
            for scale in scales
            if min((reduced := _reduce(photograph, scale)).shape[:2]) >= size
        ]
        if not self.images:
            raise FileNotFoundError(
                f"no photograph of at least {size} x {size} pixels in '{source}' (found "
                f"{len(photographs)}); give another folder or a smaller size"
            )
        areas = np.array([float(i.shape[0] * i.shape[1]) for i in self.images])
        self._chance = torch.from_numpy(areas / areas.sum())
        self.size, self.length, self.fixed = size, length, fixed

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        """``image``: (C, size, size) uint8. Draws from torch's generator, which loaders key."""
        if not 0 <= index < self.length:
            raise IndexError(index)
        generator = torch.Generator().manual_seed(mix(index, 0xC4)) if self.fixed else None
        image = self.images[int(torch.multinomial(self._chance, 1, generator=generator))]
        top, left = (
            int(torch.randint(n - self.size + 1, (), generator=generator)) for n in image.shape[:2]
        )
        crop = torch.from_numpy(image[top : top + self.size, left : left + self.size])
        crop = crop.permute(2, 0, 1)
        if not self.fixed:
            turn = int(torch.randint(8, ()))
            crop = torch.rot90(crop, turn % 4, (1, 2))
            crop = crop.flip(2) if turn >= 4 else crop
        return {"image": crop.contiguous()}


def photograph_files(source: str | Path) -> list[Path]:
    """Files of a folder or of a package's photographs, sorted.

    Raises:
        FileNotFoundError: the folder or the package is not there, or holds no photograph.
    """
    if source in _PACKAGED:
        package, folder, names = _PACKAGED[str(source)]
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise FileNotFoundError(
                f"the photographs of {source} are not here; install them with "
                f"'pip install {source}', or give a folder of your own as source"
            )
        root = Path(next(iter(spec.submodule_search_locations))) / folder
        found = [root / name for name in names if (root / name).is_file()]
    else:
        root = Path(source)
        if not root.is_dir():
            raise FileNotFoundError(
                f"no folder {root}; expected a folder of photographs, 'scikit-image' or "
                "'scikit-learn'"
            )
        found = sorted(p for p in root.rglob("*") if p.suffix.lower() in _SUFFIXES)
    if not found:
        raise FileNotFoundError(f"no photograph in {root} (looked for {', '.join(_SUFFIXES)})")
    return found


def _read(path: Path, channels: int) -> np.ndarray:
    """(H, W, C) uint8, RGB."""
    import cv2

    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE if channels == 1 else cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError(f"{path} is no readable image; remove it or mend it")
    return image[:, :, None] if channels == 1 else np.ascontiguousarray(image[:, :, ::-1])


def _reduce(image: np.ndarray, scale: float) -> np.ndarray:
    if scale == 1:
        return image
    import cv2

    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return small.reshape(*small.shape[:2], image.shape[2])
