"""Where a run stands, by what lies in its folder: not begun, cut off, or finished."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from visionlab import config as configs


def progress(config: Mapping[str, Any]) -> Literal["new", "begun", "finished"]:
    """Look into the output folder of a config.

    "begun" has a ``last.ckpt`` to go on from, "finished" a ``results.json``. A start that failed
    before its first save counts as new.

    Raises:
        ConfigError: the folder holds a run of another config; the message says what differs.
    """
    output = Path(config["output"])
    saved, last, results = (output / n for n in ("config.yaml", "last.ckpt", "results.json"))
    if not saved.is_file() or not (last.is_file() or results.is_file()):
        return "new"
    changes = configs.differences(configs.read_plain(saved), config)
    if changes:
        raise configs.ConfigError(
            [*changes, "choose another folder (output=runs/NAME), resume the old run "
             f"(tools/train.py {last}), or delete the folder"],
            f"this run: {output} holds another one, with another config",
        )  # fmt: skip
    return "finished" if results.is_file() else "begun"
