"""Clean pictures for restoration: whatever is on disk -> a list of (C, H, W) floats in [0, 1]."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from visionlab.data.photographs import photograph_files
from visionlab.data.samples import decode, need_samples, read_image
from visionlab.npz_files import read_npz

# Hounsfield units from air to dense bone
CT_WINDOW = (-1000.0, 1000.0)
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as OpenCV and JPEG


def read_pictures(source: str | Path, *, channels: int = 1) -> list[Tensor]:
    """Read all pictures of a source, each in its own size.

    Args:
        source: a folder of picture files; ``"scikit-image"`` or ``"scikit-learn"`` for the
            photographs that these packages carry; one picture file; an ``.npz`` with encoded
            pictures (``jpeg``, ``png`` or ``webp`` bytes and ``offset``); or an ``.npz`` with a CT
            volume ``hu`` (slices, H, W) in Hounsfield units. A suffix ``:first:last`` takes the
            pictures ``first`` to ``last - 1`` only, as in ``"scikit-learn:0:1"``.
        channels: 1 (luma) or 3.

    Raises:
        FileNotFoundError: nothing there, or no picture in it.
        ValueError: an archive without a known key, colour asked of a CT, or other channel counts.
    """
    if channels not in (1, 3):
        raise ValueError(f"channels is 1 or 3, got {channels}")
    name, chosen = _split(str(source))
    path = Path(name)
    if path.suffix == ".npz":
        return _read_archive(path, channels, chosen)
    files = [path] if path.is_file() else photograph_files(name)[chosen]
    need_samples(len(files), source)
    return [_as_float(read_image(p), channels) for p in files]


def _split(source: str) -> tuple[str, slice]:
    """``"name:2:5"`` -> ``("name", slice(2, 5))``."""
    head, *bounds = source.rsplit(":", 2)
    if len(bounds) == 2 and all(b.isdigit() for b in bounds):
        return head, slice(int(bounds[0]), int(bounds[1]))
    return source, slice(None)


def _read_archive(path: Path, channels: int, chosen: slice) -> list[Tensor]:
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}; expected a folder, a picture or an .npz archive")
    with read_npz(path) as archive:
        if "hu" in archive:
            if channels != 1:
                raise ValueError(f"{path.name} is a CT volume: it has one channel, not {channels}")
            low, high = CT_WINDOW
            volume = archive["hu"][chosen].astype(np.float32)
            need_samples(len(volume), path)
            return list(torch.from_numpy(((volume - low) / (high - low)).clip(0, 1))[:, None])
        key = next((k for k in ("jpeg", "png", "webp") if k in archive), None)
        if key is None or "offset" not in archive:
            raise ValueError(
                f"{path.name} holds {sorted(archive)}; expected 'offset' with 'jpeg', 'png' or "
                "'webp', or a CT volume 'hu'"
            )
        data, offset = archive[key], archive["offset"]
    pictures = range(len(offset) - 1)[chosen]
    need_samples(len(pictures), path)
    return [
        _as_float(decode(data[offset[i] : offset[i + 1]].tobytes(), f"{path.name}[{i}]"), channels)
        for i in pictures
    ]


def _as_float(image: Tensor, channels: int) -> Tensor:
    rgb = torch.as_tensor(image).as_subclass(Tensor).float() / 255
    if channels == 3:
        return rgb
    return (rgb * torch.tensor(_LUMA)[:, None, None]).sum(0, keepdim=True)


def cut_crops(
    pictures: Sequence[Tensor], size: int, *, per_picture: int = 1, seed: int = 0
) -> Tensor:
    """Square crops at random places that depend on the seed alone: ``(N, C, size, size)``.

    Raises:
        ValueError: a picture smaller than the crop, or no crop at all.
    """
    if size < 1 or per_picture < 1 or not pictures:
        raise ValueError(
            f"crops of {size} px, {per_picture} from each of {len(pictures)} pictures: expected "
            "at least 1 of each"
        )
    generator = torch.Generator().manual_seed(seed)
    crops = []
    for i, picture in enumerate(pictures):
        height, width = picture.shape[-2:]
        if min(height, width) < size:
            raise ValueError(f"picture {i} is {height}x{width}, smaller than the crop of {size}")
        for _ in range(per_picture):
            top = int(torch.randint(height - size + 1, (), generator=generator))
            left = int(torch.randint(width - size + 1, (), generator=generator))
            crops.append(picture[:, top : top + size, left : left + size])
    return torch.stack(crops)
