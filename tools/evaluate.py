#!/usr/bin/env python3
"""Evaluate a checkpoint; `tools/evaluate.py COMMAND --help` tells the arguments of a command."""

import argparse
import importlib
import logging
import sys
from collections.abc import Sequence

# command -> (module with add_arguments(parser) and run(args), what it does)
COMMANDS = {
    "frozen": (
        "visionlab.tasks.frozen_features",
        "k-NN and linear probe of a frozen encoder, beside itself untrained",
    ),
    "restore": (
        "visionlab.tasks.restoration",
        "inverse problems with a learned proximal network, beside baselines: table and panel",
    ),
    "prior": (
        "visionlab.tasks.learned_prior",
        "what a proximal network has learned: its prior along noise, blur and mixing, as a picture",
    ),
    "certify": (
        "visionlab.tasks.certification",
        "is a network the prox of a function? symmetry, curvature, weights",
    ),
    "tasks": (
        "visionlab.tasks.multitask_evaluation",
        "metrics of every task of a multi-task checkpoint",
    ),
    "transfer": (
        "visionlab.tasks.transfer",
        "start every downstream task from pre-trained encoders, and print one table",
    ),
    "surgery": (
        "visionlab.tasks.surgery",
        "prune, extend and adapt a mixture of experts: table of accuracy and cost",
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    chosen = next((a for a in arguments if a in COMMANDS), "")
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--traceback", action="store_true", help="show where an error was raised")
    commands = p.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (_, text) in COMMANDS.items():
        commands.add_parser(name, help=text, description=text)
    if chosen in COMMANDS:  # only the module of the command that runs is imported
        module = importlib.import_module(COMMANDS[chosen][0])
        module.add_arguments(commands.choices[chosen])
    args = p.parse_args(arguments)
    logging.basicConfig(format="%(message)s", force=True)
    logging.getLogger("visionlab").setLevel(logging.INFO)
    try:
        return module.run(args) or 0
    except (ValueError, OSError, RuntimeError) as error:
        if args.traceback:
            raise
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
