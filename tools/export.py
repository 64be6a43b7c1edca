#!/usr/bin/env python3
"""Write the encoder of a checkpoint as a file that timm loads strictly, or shards as one file.

python tools/export.py runs/quickstart/last.ckpt encoder.safetensors
python tools/export.py runs/large/last.ckpt whole.ckpt        # of trainer.strategy=fsdp2_sharded
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from visionlab.tasks.trust import add_trust_code


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("checkpoint", type=Path)
    p.add_argument(
        "output",
        type=Path,
        help="a .safetensors or .pth file for the encoder and a side-car, or a .ckpt file for "
        "everything that the checkpoint and its shards hold",
    )
    p.add_argument("--overwrite", action="store_true", help="replace an existing file")
    add_trust_code(p)
    args = p.parse_args(arguments)
    from visionlab import checkpoint

    try:
        if args.output.suffix == ".ckpt":
            return consolidate(args.checkpoint, args.output, overwrite=args.overwrite)
        data = checkpoint.config_of(checkpoint.read(args.checkpoint)).get("data") or {}
        sidecar = checkpoint.export_encoder(
            checkpoint.load(args.checkpoint, trust_code=args.trust_code),
            args.output,
            overwrite=args.overwrite,
            mean=data.get("mean"),
            std=data.get("std"),
        )
    except (ValueError, OSError, TypeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"wrote {args.output} and {sidecar}; verified: timm loads it strictly and equal")
    return 0


def consolidate(path: Path, output: Path, *, overwrite: bool) -> int:
    """Write a checkpoint and its shards as one file."""
    from visionlab.sharded_checkpoint import consolidate

    consolidate(path, output, overwrite=overwrite)
    print(f"wrote {output}: one file, which visionlab.load and any run take")
    return 0


if __name__ == "__main__":
    sys.exit(main())
