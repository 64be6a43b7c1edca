"""A run as a program of its own.

With several devices Lightning starts the program that runs once more for each of them, so it must
be that run and nothing else: a command that makes several runs would make all of them on each rank.
"""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from visionlab.tasks.launch import launched
from visionlab.tasks.stopping import Interrupted, StopSignals

_TRAIN = Path(__file__).resolve().parents[2] / "tools" / "train.py"


def one_device(config: Mapping[str, Any]) -> bool:
    """Whether a run of this config stays in the process that starts it."""
    trainer = config.get("trainer") or {}
    devices = trainer.get("devices", "auto")
    alone = len(devices) == 1 if isinstance(devices, list) else str(devices) == "1"
    return alone and trainer.get("num_nodes", 1) == 1


def check_alone(command: str) -> None:
    """A command that starts runs must not itself be started once per rank.

    Raises:
        ValueError: torchrun or srun has started several processes.
    """
    found = launched()
    if (ranks := found.get("devices", 1) * found.get("num_nodes", 1)) > 1:
        raise ValueError(
            f"'{command}' was launched as {ranks} processes; start it as one (without torchrun, "
            "with one task under SLURM): it starts the processes of each run by itself"
        )


def run_apart(config: Mapping[str, Any], *, trust_code: bool = False) -> None:
    """Run a config by ``tools/train.py``, from where its output folder stands to its end.

    Raises:
        Interrupted: a signal asked to stop; everything is saved.
        RuntimeError: the run failed; it has said why.
    """
    from visionlab.tasks.training import write_config

    folder = Path(config["output"])
    folder.mkdir(parents=True, exist_ok=True)
    write_config(config, folder / "config.yaml")
    command = [sys.executable, str(_TRAIN), str(folder / "config.yaml")]
    with StopSignals() as stop:
        process = subprocess.Popen([*command, "--trust-code"] if trust_code else command)
        stop.forward, stop.deferred = process.send_signal, True
        status = process.wait()
    if stop.requested is not None:
        raise Interrupted(stop.status())
    if status:
        raise RuntimeError(
            f"the run in {folder} ended with status {status}, its own message stands above; the "
            "same command goes on from its last save"
        )
