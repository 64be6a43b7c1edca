"""Weights and resolved config in one plain file; the model again from the file alone.

Beside ``state_dict``, a checkpoint holds ``visionlab = {"format", "version", "config"}``. How the
files are written and read: ``checkpoint_files``; for timm: ``encoder_export``.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

import visionlab
from visionlab import config as configs
from visionlab.checkpoint_files import PREVIOUS, CheckpointError, read, save
from visionlab.encoder_export import export_encoder

__all__ = [
    "FORMAT",
    "PREVIOUS",
    "CheckpointError",
    "config_of",
    "export_encoder",
    "load",
    "load_strictly",
    "metadata",
    "plain",
    "read",
    "save",
    "save_model",
]

FORMAT = 1
# on rebuilding, weights come from the checkpoint: nothing is fetched or read besides
_WEIGHT_SOURCES = {"pretrained", "checkpoint_path", "weights"}


def metadata(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a checkpoint that rebuilds its model."""
    return {"format": FORMAT, "version": visionlab.__version__, "config": plain(config)}


def config_of(content: Mapping[str, Any], source: str = "the checkpoint") -> dict[str, Any]:
    """The resolved config that a checkpoint carries.

    Raises:
        CheckpointError: it carries none, or is of a newer format.
    """
    stamp = content.get("visionlab")
    if not isinstance(stamp, dict) or not isinstance(stamp.get("config"), dict):
        raise CheckpointError(f"{source} carries no config; it was not written by visionlab")
    if not isinstance(stamp.get("format"), int) or stamp["format"] > FORMAT:
        raise CheckpointError(
            f"{source} has format {stamp.get('format')}, this version reads up to {FORMAT}; "
            f"it was written by visionlab {stamp.get('version')}: upgrade"
        )
    return stamp["config"]


def plain(value: Any) -> Any:
    """``value`` with paths as strings and array scalars as numbers: what ``weights_only`` loads.

    Raises:
        TypeError: something that has no plain form.
    """
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, Path):
        return str(value)
    if type(value) in (int, float, str, bool, type(None)) or isinstance(value, Tensor):
        return value
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{value!r} ({type(value).__name__}) has no plain form for a checkpoint")


def load(path: str | Path, *, trust_code: bool = False) -> nn.Module:
    """The model that a checkpoint holds, rebuilt from the file alone, in eval mode on the CPU.

    Args:
        path: a training checkpoint (``last.ckpt``) or a file of `save_model`.
        trust_code: allow ``_target_`` classes that the checkpoint names, which runs their code.

    Raises:
        FileNotFoundError: no such file.
        CheckpointError: broken file, or weights that are not this model's.
        ConfigError: the config refuses to build, or names a ``_target_`` without trust.

    Example:
        >>> model = visionlab.load("runs/quickstart/last.ckpt")  # doctest: +SKIP
    """
    content = read(path)
    config = config_of(content, str(path))
    task = config.get("task")
    held = task.get("model") if isinstance(task, Mapping) else config.get("model")
    node = _without_weight_sources(held)
    if node is None:
        raise CheckpointError(f"the config in {path} names no model")
    model = configs.build(node, key="model", trust_code=trust_code)
    state = {
        k.removeprefix("model."): v
        for k, v in content.get("state_dict", {}).items()
        if k.startswith("model.")
    }
    load_strictly(model, state, source=str(path))
    return model.eval()


def _without_weight_sources(node: Any) -> Any:
    if isinstance(node, Mapping):
        return {k: _without_weight_sources(v) for k, v in node.items() if k not in _WEIGHT_SOURCES}
    if isinstance(node, list):
        return [_without_weight_sources(v) for v in node]
    return node


def save_model(model: nn.Module, path: str | Path, model_config: Mapping[str, Any]) -> None:
    """Write a bare model so that `load` rebuilds it.

    Args:
        model: the module.
        path: the file; written atomically.
        model_config: its component mapping, ``{"name": ..., arguments}``.
    """
    state = {f"model.{k}": v for k, v in model.state_dict().items()}
    save({"state_dict": state, "visionlab": metadata({"model": model_config})}, path)


def load_strictly(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """``load_state_dict`` that accepts nothing but a perfect match and says what differs.

    Raises:
        CheckpointError: missing, unexpected or mis-shaped keys, by name.
    """
    own = model.state_dict()
    shapes = [
        f"{k} is {tuple(state[k].shape)} instead of {tuple(own[k].shape)}"
        for k in own
        if k in state and state[k].shape != own[k].shape
    ]
    problems = [
        f"{label} {_some(keys)}"
        for label, keys in (
            ("missing", [k for k in own if k not in state]),
            ("unexpected", [k for k in state if k not in own]),
            ("other shapes:", shapes),
        )
        if keys
    ]
    if problems:
        raise CheckpointError(
            f"{source} does not hold the weights of this {type(model).__name__}: "
            + "; ".join(problems)
        )
    model.load_state_dict(state)


def _some(names: list[str], limit: int = 5) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
