"""Whether a command may call the code that a checkpoint or a config names."""

from argparse import ArgumentParser


def add_trust_code(parser: ArgumentParser) -> None:
    """The switch of `tools/train.py`, for a command that rebuilds what others have written."""
    parser.add_argument(
        "--trust-code",
        action="store_true",
        help="let the checkpoint (and configs) call any class by _target_",
    )
