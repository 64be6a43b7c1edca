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
        ConfigError: the folder holds a run of another config, and the message says what differs,
            or files of the same names that no run has written.
    """
    output = Path(config["output"])
    saved, last, results = (output / n for n in ("config.yaml", "last.ckpt", "results.json"))
    standing = [path for path in (last, results) if path.exists()]
    known = configs.read_plain(saved) if saved.is_file() else {}
    if "task" not in known and (standing or saved.exists()):
        foreign = (standing or [saved])[0]
        raise configs.ConfigError(
            [f"{foreign} was written by something else, and a run would replace it; choose another "
             "folder (output=runs/NAME)"],
            str(output),
        )  # fmt: skip
    if not standing:
        return "new"
    changes = configs.differences(known, config)
    if changes:
        raise configs.ConfigError(
            [*changes, "choose another folder (output=runs/NAME), resume the old run "
             f"(tools/train.py {last}), or delete the folder"],
            f"this run: {output} holds another one, with another config",
        )  # fmt: skip
    return "finished" if results.is_file() else "begun"
