"""From a checked config to a finished run: build, fit or predict, evaluate, keep everything.

A run folder holds ``config.yaml``, ``last.ckpt``, ``metrics.csv``, TensorBoard events, pictures
and, once finished, ``results.json``.
"""

import json
import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch
import yaml
from lightning.pytorch.callbacks import Callback, TQDMProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from visionlab import atomic, checkpoint
from visionlab import config as configs
from visionlab.data.images import ImageData
from visionlab.data.randomness import seed_all
from visionlab.data.workers import explain_death
from visionlab.tasks.base import Task
from visionlab.tasks.curves import CurveLogger, drop_after
from visionlab.tasks.data_parallel import meet_once_a_step
from visionlab.tasks.launch import meet_again, part, trainer_arguments
from visionlab.tasks.memory import keep_freed_memory
from visionlab.tasks.saving import AtomicCheckpointIO, Saving
from visionlab.tasks.sharding import checkpoint_activations, is_sharded, whole_state
from visionlab.tasks.stopping import StopSignals
from visionlab.tasks.tables import format_table

log = logging.getLogger("visionlab")

_CHECKPOINT_EVERY_STEPS = 100


class ProgressBar(TQDMProgressBar):
    """Lightning's bar without the version number of a logger."""

    def get_metrics(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """What stands at the right of the bar."""
        return {k: v for k, v in super().get_metrics(*args, **kwargs).items() if k != "v_num"}


def quieten_lightning() -> None:
    """Keep Lightning's advertisements and known-harmless notices out of the terminal."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for message in (
        ".*Checkpoint directory .* exists and is not empty.*",  # a run folder holds more than it
        ".*isinstance.treespec, LeafSpec.*",  # Lightning's own use of torch
        ".*does not have many workers.*",
        "(?s).*Grad strides do not match bucket view strides.*",  # of tokens of shape (1, 1, D)
    ):
        warnings.filterwarnings("ignore", message)


def run(config: Mapping[str, Any], resume: Path | None = None) -> Path:
    """Run a checked config to its end.

    Args:
        config: resolved and checked; ``output`` names the run folder.
        resume: checkpoint to go on from.

    Returns:
        The run folder.

    Raises:
        Interrupted: a signal asked to stop; everything is saved, see `visionlab.tasks.stopping`.
    """
    with StopSignals() as stop:
        return _run(config, resume, stop)


def _run(config: Mapping[str, Any], resume: Path | None, stop: StopSignals) -> Path:
    quieten_lightning()
    output = Path(config["output"])
    seed = int(config.get("seed", 0))
    seed_all(seed)
    # the task first: a wrong value in it is said before data is fetched or listed
    task: Task = configs.build(config["task"], key="task")
    data = configs.build(config["data"], key="data") if config.get("data") else None
    task.seed, task.run_config, task.output = seed, dict(config), output
    if data is not None:
        data.seed = seed
    trainer = build_trainer(
        config,
        output,
        stop,
        validate=has_validation(data),
        unused_parameters=task.unused_parameters,
    )
    meet_again(trainer.strategy.root_device)
    if trainer.is_global_zero:
        begin_folder(config, output, resume)
        log.info("%s on %s, into %s", config["task"]["name"], device_name(trainer), output)
    if trainer.strategy.root_device.type == "cpu":
        keep_freed_memory()
    if (config.get("trainer") or {}).get("activation_checkpointing"):
        checkpoint_activations(task.model)
    try:
        if task.job == "predict":
            trainer.predict(task, datamodule=data, return_predictions=False)
        else:
            trainer.fit(task, datamodule=data, ckpt_path=resume, weights_only=True)
    except MisconfigurationException as error:
        raise ValueError(" ".join(str(error).split())) from error
    except (RuntimeError, OSError, EOFError) as error:
        told = explain_death(error) or atomic.explain_full(error, output)
        if told is None:
            raise
        raise told from error
    if is_sharded(task.model):
        task = gathered(config, task, trainer)
    part()
    if trainer.is_global_zero and not trainer.interrupted:
        evaluate(config, task, data, output)
    return output


def gathered(config: Mapping[str, Any], task: Task, trainer: L.Trainer) -> Task:
    """A task of whole weights, on rank 0, for what runs there alone; called on every rank."""
    state = whole_state(task, keep=trainer.is_global_zero)
    if not trainer.is_global_zero:
        return task
    seed_all(task.seed)
    whole: Task = configs.build(config["task"], key="task")
    checkpoint.load_strictly(whole, state, "the sharded model")
    whole.seed, whole.run_config, whole.output = task.seed, task.run_config, task.output
    return whole.to(trainer.strategy.root_device)


def has_validation(data: Any) -> bool:
    """Whether a data module offers validation batches."""
    return not isinstance(data, ImageData) or "val" in data.datasets


def device_name(trainer: L.Trainer) -> str:
    """Number and kind of devices, for the first line of a run."""
    kind = trainer.strategy.root_device.type
    threads = f" with {torch.get_num_threads()} threads" if kind == "cpu" else ""
    return f"{trainer.world_size} x {kind}{threads}"


def build_trainer(
    config: Mapping[str, Any],
    output: Path,
    stop: StopSignals,
    *,
    validate: bool = True,
    unused_parameters: bool = False,
) -> L.Trainer:
    """The Trainer of a config with this project's logs and checkpoints."""
    trainer = config.get("trainer") or {}
    every = trainer.get("checkpoint_every_n_steps", _CHECKPOINT_EVERY_STEPS)
    arguments = trainer_arguments(trainer, unused_parameters=unused_parameters)
    curves = output / "metrics.csv"
    arguments.setdefault("default_root_dir", str(output))
    if not validate:
        arguments["limit_val_batches"] = 0
    arguments.setdefault(
        "logger", [CurveLogger(curves), TensorBoardLogger(output, name="", version="tensorboard")]
    )
    arguments["plugins"] += [AtomicCheckpointIO()]
    try:
        built = L.Trainer(**arguments, callbacks=_callbacks(output, stop, every, arguments))
    except MisconfigurationException as error:
        raise ValueError(f"trainer: {error}") from error
    meet_once_a_step(built)
    return built


def begin_folder(config: Mapping[str, Any], output: Path, resume: Path | None) -> None:
    """Write the config, and drop the curves that this run will draw; for rank 0 alone."""
    output.mkdir(parents=True, exist_ok=True)
    atomic.remove_leftovers(output)
    write_config(config, output / "config.yaml")
    curves = output / "metrics.csv"
    if resume is None:
        curves.unlink(missing_ok=True)
    else:
        content = checkpoint.read(resume, tensors=False)
        drop_after(curves, int(content["global_step"]), length=content.get("curves_bytes"))


def _callbacks(
    output: Path, stop: StopSignals, every: int, arguments: Mapping[str, Any]
) -> list[Callback]:
    callbacks: list[Callback] = []
    if arguments.get("enable_progress_bar", True):
        callbacks.append(ProgressBar(refresh_rate=10))
    if not arguments.get("fast_dev_run"):
        callbacks.append(Saving(output / "last.ckpt", stop, every=every))
    return callbacks


def evaluate(config: Mapping[str, Any], task: Task, data: Any, output: Path) -> None:
    """Run the evaluations of a config, print their tables and write ``results.json``."""
    tables = {}
    for i, node in enumerate(config.get("evaluations") or []):
        evaluation = configs.build(node, key="evaluation", path=f"evaluations.{i}")
        seed_all(task.seed, 0xE7A1, i)
        rows = evaluation.run(task, data, output)
        if rows:
            tables[evaluation.title] = rows
            print(f"\n{format_table(rows, evaluation.title)}")
    text = json.dumps(checkpoint.plain(tables), indent=2)
    atomic.write_text(text, output / "results.json")


def write_config(config: Mapping[str, Any], path: Path) -> None:
    """The resolved config as YAML."""
    text = yaml.safe_dump(checkpoint.plain(config), sort_keys=False)
    atomic.write_text(text, path)


def load_task(path: Path, *, trust_code: bool = False) -> tuple[Task, Any]:
    """Task and data module of a training checkpoint, weights loaded, in eval mode.

    Args:
        path: the checkpoint.
        trust_code: allow ``_target_`` classes that it names, which runs their code.

    Raises:
        CheckpointError: the file is no training checkpoint.
        ConfigError: it names a ``_target_`` without trust.
    """
    content = checkpoint.read(path)
    config = checkpoint.config_of(content, str(path))
    if "task" not in config:
        raise checkpoint.CheckpointError(f"{path} holds a bare model, not a training run")
    seed_all(int(config.get("seed", 0)))
    task: Task = configs.build(config["task"], key="task", trust_code=trust_code)
    checkpoint.load_strictly(task, content.get("state_dict", {}), str(path))
    data = configs.build(config["data"], key="data", trust_code=trust_code)
    task.seed = data.seed = int(config.get("seed", 0))
    task.run_config, task.output = config, path.parent
    return task.eval(), data
