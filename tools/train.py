#!/usr/bin/env python3
"""Train (or run) what a config describes, or go on with a run that was interrupted.

python tools/train.py configs/quickstart.yaml
python tools/train.py configs/quickstart.yaml trainer.max_epochs=2 output=runs/short
python tools/train.py runs/quickstart/last.ckpt
torchrun --standalone --nproc-per-node 8 tools/train.py configs/quickstart.yaml
sbatch tools/train.sbatch configs/quickstart.yaml
"""

import argparse
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from visionlab import config as configs

log = logging.getLogger("visionlab")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    args = parser().parse_args(arguments)
    logging.basicConfig(format="%(message)s", force=True)
    log.setLevel(logging.INFO if first_process() else logging.WARNING)
    try:
        if args.check:
            read = configs.read(args.config, args.overrides)
            configs.check(read, str(args.config), trust_code=args.trust_code)
            print(f"{args.config}: no errors")
            return 0
        config, resume = prepare(args.config, args.overrides, trust_code=args.trust_code)
        if config is None:
            return 0
        from visionlab.tasks.training import run

        output = run(config, resume)
    except (ValueError, OSError, RuntimeError) as error:
        if args.traceback:
            raise
        print(f"error: {error}", file=sys.stderr)
        return 1
    if first_process():
        print(f"\ncheckpoint, curves, pictures and tables: {output}")
    return 0


def first_process() -> bool:
    """Whether this process speaks for all that torchrun, srun or Lightning started."""
    ranks = ("RANK", "SLURM_PROCID", "LOCAL_RANK")
    return all(os.environ.get(name, "0") == "0" for name in ranks)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("config", type=Path, help="a YAML config, or RUN/last.ckpt to resume")
    p.add_argument(
        "overrides", nargs="*", metavar="key=value", help="e.g. task.model.mask.ratio=0.6"
    )
    p.add_argument("--check", action="store_true", help="only look for errors in the config")
    p.add_argument(
        "--trust-code", action="store_true", help="let the config call any class by _target_"
    )
    p.add_argument("--traceback", action="store_true", help="show where an error was raised")
    return p


def prepare(
    path: Path, overrides: Sequence[str], *, trust_code: bool = False
) -> tuple[dict[str, Any] | None, Path | None]:
    """The checked config, and the checkpoint to go on from if there is one.

    None instead of a config means that the run is finished.
    """
    if path.suffix == ".ckpt":
        return resume_from(path, overrides, trust_code=trust_code)
    config = configs.read(path, overrides)
    config.setdefault("output", f"runs/{path.stem}")
    configs.check(config, str(path), trust_code=trust_code)
    return continue_if_started(config)


def resume_from(
    path: Path, overrides: Sequence[str], *, trust_code: bool = False
) -> tuple[dict[str, Any], Path]:
    """Config of a checkpoint with overrides; says what they change."""
    from visionlab import checkpoint

    saved = checkpoint.config_of(checkpoint.read(path, tensors=False), str(path))
    config = configs.override(saved, overrides)
    configs.check(config, str(path), trust_code=trust_code)
    changes = configs.differences(saved, config)
    if refused := [c for c in changes if c.startswith("task.model")]:
        raise configs.ConfigError(
            [*refused, "a resumed run cannot change its model: its weights would not fit"],
            str(path),
        )
    for change in changes:
        log.info("resuming with a changed config: %s", change)
    if config.get("output") == saved.get("output"):  # the folder may have been moved
        config["output"] = str(path.parent)
    return config, path


def continue_if_started(
    config: Mapping[str, Any],
) -> tuple[dict[str, Any] | None, Path | None]:
    """Go on with the run in the output folder, if it is this one.

    Raises:
        ConfigError: the folder holds a run of another config.
    """
    from visionlab.tasks.run_folder import progress

    output = Path(config["output"])
    standing = progress(config)
    if standing == "new":
        return dict(config), None
    if standing == "finished":
        if first_process():
            print(f"{output} is finished; choose output=runs/NAME to run it again")
        return None, None
    last = output / "last.ckpt"
    log.info("going on from %s", last)
    return dict(config), last


if __name__ == "__main__":
    sys.exit(main())
