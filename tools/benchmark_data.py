"""Figures of loading: packed shards beside an image folder, and what decoding costs a core.

    python tools/benchmark.py data reading
    python tools/benchmark.py data decoding

Pictures are crops of the photographs that scikit-image and scikit-learn carry (extra ``photos``),
500 x 375 px as JPEG of about ImageNet's size. One process, one thread, files in the page cache; all
arms of a table run in turn; rates are of CPU time, so that other programs disturb them less.
"""

import argparse
import math
import statistics
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import fsspec
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from visionlab.data import ImageFolder, ImageShards, KeyedLoader
from visionlab.data.decoding import decode_rgb
from visionlab.data.items import photographs
from visionlab.data.randomness import keyed_randomness
from visionlab.data.shards.packing import pack
from visionlab.data.shards.sources import image_folder
from visionlab.data.shards.writing import Encoding, encode
from visionlab.data.transforms import pretraining
from visionlab.figures import Column, Figure, FigureTable, at_least, in_turn, measured, publish

Arms = Mapping[str, Callable[[], object]]
URL = "memory://benchmark/set"
# One H100, MAE pre-training at 224 px with the published decoder: ViT-B/16 was measured at 5,089
# images/s (19.56 forward GFLOP an image); ViT-S needs 12.7, so that the same FLOP/s give this.
VIT_S_IMAGES_PER_S = 5089 * 19.56 / 12.72


def main() -> None:
    """Parse, measure one table, print it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("table", choices=("reading", "decoding"))
    parser.add_argument("--pictures", type=int, help="192 to read or 24 to decode if not given")
    parser.add_argument("--repetitions", type=int, default=9)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        make = reading_table if args.table == "reading" else decoding_table
        count = args.pictures or (192 if args.table == "reading" else 24)
        table = make(Path(name), count, args.repetitions)
    for figure in table.figures:
        print(f"{figure.what:60s}", *(c.cell.format(**figure.values) for c in table.columns))
    publish(table)


# ---------------------------------------------------------------- pictures


def make_pictures(folder: Path, count: int, width: int = 500, height: int = 375) -> list[Path]:
    """JPEGs in two class folders: crops of colour photographs, reduced or enlarged to one size."""
    rng = np.random.default_rng(0)
    photos = [p for s in ("train", "test") for p in photographs(s) if np.ptp(p, axis=2).any()]
    paths = []
    for i in range(count):
        photo = photos[i % len(photos)]
        h = int(min(photo.shape[0], photo.shape[1] * height / width) * rng.uniform(0.7, 1.0))
        w = min(round(h * width / height), photo.shape[1])
        y, x = (int(rng.integers(n + 1)) for n in (photo.shape[0] - h, photo.shape[1] - w))
        picture = Image.fromarray(photo[y : y + h, x : x + w]).resize((width, height))
        paths.append(folder / f"class{i % 2}" / f"{i:05d}.jpg")
        paths[-1].parent.mkdir(parents=True, exist_ok=True)
        picture.save(paths[-1], quality=95)
    return paths


# ---------------------------------------------------------------- reading


def reading_table(place: Path, count: int, repetitions: int) -> FigureTable:
    """Images per second of whole epochs, from a folder and from shards of the same JPEGs."""
    make_pictures(place / "folder", count)
    pack(image_folder(place / "folder"), place / "set", samples_per_shard=max(count // 4, 1))
    remote = fsspec.filesystem("memory")
    for path in (place / "set").iterdir():
        remote.pipe_file(f"/benchmark/set/{path.name}", path.read_bytes())
    crop = pretraining(224)
    shards = partial(ImageShards, transform=crop)
    datasets = {
        "image folder": ImageFolder(place / "folder", transform=crop),
        "shards, whole set shuffled": shards(str(place / "set")),
        "shards, window of 2": shards(str(place / "set"), window=2, lanes=1),
        "shards behind a URL, in the cache": shards(URL, cache=str(place / "cache"), window=2),
        "shards behind a URL (memory://), no cache": shards(URL, window=2),
    }
    arms = {name: partial(_epoch, dataset) for name, dataset in datasets.items()}
    seconds = in_turn(arms, repetitions)
    base = seconds["image folder"]
    figures = []
    for name, times in seconds.items():
        values = {
            "rate": count / statistics.median(times),
            "ratio": statistics.median(b / t for b, t in zip(base, times)),  # round by round
        }
        spread = {"rate": [count / max(times), count / min(times)]}
        claims = [at_least("ratio", 0.95)] if name.startswith("shards") else []
        figures.append(Figure(name, values, spread=spread, claims=claims))
    return measured(
        "data.reading",
        "An epoch from shards beside a warm image folder: the same JPEGs, decode and crops",
        head="one process, random resized crop 224",
        columns=[Column("images/s", "{rate:.0f}"), Column("/ image folder", "{ratio:.3f}")],
        figures=figures,
        note=f"{count} pictures of 500x375 px, medians of {repetitions} epochs in turn.",
        units={"rate": "images/s of CPU time", "ratio": "median of the rounds' ratios"},
    )


def _epoch(dataset: ImageFolder | ImageShards) -> None:
    for _ in KeyedLoader(dataset, 16, shuffle=True):
        pass


# ---------------------------------------------------------------- decoding


def decoding_table(place: Path, count: int, repetitions: int) -> FigureTable:
    """Images per second and core of ways to get a 224 px training crop from a JPEG."""
    medium = [p.read_bytes() for p in make_pictures(place / "medium", count)]
    large = [p.read_bytes() for p in make_pictures(place / "large", count, 1000, 750)]
    small = [encode(d, ".jpg", Encoding(256))[0] for d in medium]
    crop, draft = pretraining(224), partial(decode_rgb, draft=224)
    arms = {
        "500x375: decode alone": _each(medium, decode_rgb),
        "500x375: decode and crop": _each(medium, decode_rgb, crop),
        "500x375: torchvision's decoder and crop": _each(medium, _torchvision, crop),
        "500x375: OpenCV's decoder and crop": _each(medium, _opencv, crop),
        "500x375: draft mode (no gain: a half is too small)": _each(medium, draft, crop),
        "packed with --shorter-side 256: decode and crop": _each(small, decode_rgb, crop),
        "1000x750: decode and crop": _each(large, decode_rgb, crop),
        "1000x750: draft mode": _each(large, draft, crop),
    }
    sizes = {"500x375": medium, "packed": small, "1000x750": large}
    return measured(
        "data.decoding",
        "What a core decodes: JPEG to a 224 px random resized crop",
        head="one thread",
        columns=[
            Column("kB a picture", "{kb:.0f}"),
            Column("images/s and core", "{rate:.0f}"),
            Column("cores for one H100 at ViT-S", "{cores}"),
        ],
        figures=[
            _decoding_figure(name, times, next(v for k, v in sizes.items() if name.startswith(k)))
            for name, times in in_turn(arms, repetitions).items()
        ],
        note=(
            f"{count} pictures, medians of {repetitions} rounds in turn. The last column is an "
            f"extrapolation: {VIT_S_IMAGES_PER_S:,.0f} images/s, from the 5,089 images/s measured "
            "for ViT-B/16 on an H100 at equal FLOP/s; no loader fed a GPU here."
        ),
        units={"rate": "images/s of CPU time", "cores": "extrapolated", "kb": "10^3 bytes"},
    )


def _each(
    pictures: Sequence[bytes],
    decode: Callable[[bytes], Tensor],
    transform: Callable[[Tensor], Tensor] | None = None,
) -> Callable[[], object]:
    def run() -> None:
        with keyed_randomness(0):  # the same crops in every arm
            for data in pictures:
                image = decode(data)
                if transform is not None:
                    transform(image)

    return run


def _decoding_figure(name: str, times: Sequence[float], pictures: Sequence[bytes]) -> Figure:
    rate = len(pictures) / statistics.median(times)
    values = {
        "kb": float(np.mean([len(d) for d in pictures])) / 1e3,
        "rate": rate,
        "cores": math.ceil(VIT_S_IMAGES_PER_S / rate),
    }
    spread = {"rate": [len(pictures) / max(times), len(pictures) / min(times)]}
    return Figure(name, values, spread=spread)


def _torchvision(data: bytes) -> Tensor:
    from torchvision.io import ImageReadMode, decode_jpeg

    buffer = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)  # since torchvision 0.29
        return decode_jpeg(buffer, mode=ImageReadMode.RGB)


def _opencv(data: bytes) -> Tensor:
    import cv2

    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    return torch.from_numpy(picture).permute(2, 0, 1)


if __name__ == "__main__":
    main()
