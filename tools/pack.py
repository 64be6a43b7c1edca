#!/usr/bin/env python3
r"""Pack pictures into shards: few large files, for a disk or to stream from s3://, https://.

    python tools/pack.py data/imagenet/train data/shards/train
    python tools/pack.py data/imagenet/train data/shards/train256 --shorter-side 256
    python tools/pack.py data/coco/train2017 data/shards/coco \
        --coco data/coco/annotations/instances_train2017.json
    python tools/pack.py --verify data/shards/train        (or a URL)

SOURCE is an image folder (SOURCE/CLASS/IMAGE.jpg) or, with --coco, the folder of its pictures.
Started again after an interruption, packing goes on: finished shards are checked and kept, and
the result is the same, byte by byte. The same command also mends a set that lost or damaged
some shards. A folder with anything else in it is never touched.

The shards are WebDataset tars; the config reads them as `image_shards` or `coco_shards`.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    p = parser()
    args = p.parse_args(arguments)
    if (args.verify is None) == (args.target is None):
        p.error("give SOURCE and TARGET, or --verify FOLDER")
    try:
        return check(args.verify) if args.verify else pack(args)
    except (ValueError, OSError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("interrupted; start the same command again to go on", file=sys.stderr)
    return 1


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = p.add_argument
    add("source", type=Path, nargs="?", metavar="SOURCE", help="folder of pictures")
    add("target", type=Path, nargs="?", metavar="TARGET", help="folder for the shards")
    add("--coco", type=Path, metavar="JSON", help="instances file of a COCO set")
    add("--verify", metavar="FOLDER", help="check a packed set (folder or URL), byte by byte")
    add("--samples-per-shard", type=int, default=1024, metavar="N", help="default: %(default)s, "
        "which of ImageNet's pictures make about 110 MB")  # fmt: skip
    add("--shorter-side", type=int, metavar="PX", help="make larger pictures smaller, as JPEG: "
        "faster to decode; default: bytes as they are")  # fmt: skip
    add("--quality", type=int, default=90, metavar="Q", help="of those, 1..100 (%(default)s)")
    add("--seed", type=int, default=0, help="of the order of packing (%(default)s)")
    add("--as-listed", action="store_true", help="pack in the order of the folder: a picture "
        "keeps its number, but shards hold few classes: read them without a window")  # fmt: skip
    add("--processes", type=int, default=1, metavar="N", help="at work at a time (%(default)s)")
    return p


def pack(args: argparse.Namespace) -> int:
    """Pack a source; returns the exit status."""
    from visionlab.data.shards import packing, sources
    from visionlab.data.shards.writing import Encoding

    if args.coco is not None and args.shorter_side is not None:
        raise ValueError("--shorter-side with --coco: boxes are in pixels of the stored pictures")
    source = (
        sources.coco(args.source, args.coco) if args.coco else sources.image_folder(args.source)
    )
    with progress_bar("packing") as progress:
        result = packing.pack(
            source,
            args.target,
            samples_per_shard=args.samples_per_shard,
            seed=None if args.as_listed else args.seed,
            encoding=Encoding(args.shorter_side, args.quality),
            processes=args.processes,
            progress=progress,
        )
    print(f"{args.target}: {len(source.samples)} pictures in {result.kept + result.made} shards "
          f"({result.kept} kept, {result.made} made)")  # fmt: skip
    if result.unreadable:
        print(f"{len(result.unreadable)} pictures cannot be decoded and were packed as they are: "
              f"{', '.join(result.unreadable[:10])}")  # fmt: skip
    return 0


def check(folder: str) -> int:
    """Verify a packed set; the exit status is 1 if anything is wrong."""
    from visionlab.data.shards.verification import verify

    with progress_bar("checking") as progress:
        problems = verify(folder, progress=progress)
    for line in problems:
        print(line)
    print(f"{folder}: {f'{len(problems)} problems' if problems else 'every byte is as packed'}")
    return 1 if problems else 0


@contextmanager
def progress_bar(what: str) -> Any:
    """A bar on the terminal; gives a function of (done, total)."""
    from tqdm import tqdm

    with tqdm(desc=what, unit=" pictures", smoothing=0.05) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        progress: Callable[[int, int], None] = show
        yield progress


if __name__ == "__main__":
    sys.exit(main())
