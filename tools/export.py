#!/usr/bin/env python3
"""Write the encoder of a checkpoint as a file that timm loads strictly, with a side-car.

python tools/export.py runs/quickstart/last.ckpt encoder.safetensors
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("checkpoint", type=Path)
    p.add_argument("output", type=Path, help="a .safetensors or .pth file")
    p.add_argument("--overwrite", action="store_true", help="replace an existing file")
    args = p.parse_args(arguments)
    from visionlab import checkpoint

    try:
        data = checkpoint.config_of(checkpoint.read(args.checkpoint)).get("data") or {}
        sidecar = checkpoint.export_encoder(
            checkpoint.load(args.checkpoint),
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


if __name__ == "__main__":
    sys.exit(main())
