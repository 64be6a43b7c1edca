"""Weights and resolved config in one plain file; the model again from the file alone.

A checkpoint is a dict of tensors, numbers, strings and dicts. It loads with ``weights_only=True``
and holds, beside ``state_dict``, ``visionlab = {"format", "version", "config"}``.
"""

import json
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import visionlab
from visionlab import atomic
from visionlab import config as configs

FORMAT = 1
PREVIOUS = "previous.ckpt"  # beside last.ckpt: the one that it replaced
# on rebuilding, weights come from the checkpoint: nothing is fetched or read besides
_WEIGHT_SOURCES = {"pretrained", "checkpoint_path", "weights"}


class CheckpointError(ValueError):
    """A file that is no checkpoint, or not one of this model."""


def save(payload: Mapping[str, Any], path: str | Path, *, keep: Path | None = None) -> None:
    """Write a checkpoint so that ``path`` is at any moment the old file or the new one, whole.

    Args:
        payload: plain content.
        path: the file.
        keep: further name for the checkpoint that is replaced.

    Raises:
        OSError: the disk is full or not writable; the old file is intact.
    """
    with atomic.replacing(path, keep=keep) as file:
        try:
            torch.save(dict(payload), file)
        except RuntimeError as error:  # torch's writer hides what the disk said
            cause = error.__context__
            raise cause if isinstance(cause, OSError) else OSError(_first_line(error)) from error


def read(path: str | Path, *, tensors: bool = True) -> dict[str, Any]:
    """The plain content of a checkpoint or of a ``.safetensors`` file, on the CPU.

    Args:
        path: the file; with a sharded checkpoint, its folder of shards lies beside it.
        tensors: also read the shards of a sharded checkpoint.

    Raises:
        FileNotFoundError: no such file.
        CheckpointError: truncated, not a checkpoint, or it wants to run code on loading.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}; give the path of an existing file")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise CheckpointError(
                f"{path} is truncated or no safetensors file ({error})"
            ) from error
    _check_records(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a broken file
        if "WeightsUnpickler" in str(error):
            raise CheckpointError(
                f"{path} holds objects other than plain data: {_first_line(error)}"
            ) from error
        raise _damaged(path, f"is truncated or no checkpoint: {_first_line(error)}") from error
    if not isinstance(content, dict):
        raise CheckpointError(
            f"{path} holds a {type(content).__name__}; expected a checkpoint dict"
        )
    if tensors and "shards" in content:
        from visionlab import sharded_checkpoint

        sharded_checkpoint.load_whole(content, path)
    return content


def _check_records(path: Path) -> None:
    """Hold every record against its checksum, which torch writes but does not read.

    0.3 ms per MB. Files of torch before 1.6 are no archives and carry no checksums.
    """
    try:
        if not zipfile.is_zipfile(path):  # raises, too, for some damage to the end of the file
            return
        with zipfile.ZipFile(path) as archive:
            # torch stores; what is deflated may unfold to any size
            packed = [r.filename for r in archive.infolist() if r.compress_type]
            broken = packed[0] if packed else archive.testzip()
    except Exception as error:  # whatever the headers of a damaged archive lead to
        raise _damaged(path, f"is damaged: {_first_line(error)}") from error
    if broken is not None:
        what = "is compressed" if packed else "does not match its checksum"
        raise _damaged(path, f"is damaged: the record {broken!r} {what}")


def _damaged(path: Path, what: str) -> CheckpointError:
    """The error, with what to do: a run keeps the checkpoint before the last."""
    earlier = path.with_name(PREVIOUS)
    if path.name != PREVIOUS and earlier.is_file():
        return CheckpointError(f"{path} {what}. The one before it is there: resume from {earlier}")
    return CheckpointError(f"{path} {what}. Restore it from a copy, or run again from the start")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


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


def save_model(model: nn.Module, path: str | Path, model_config: Mapping[str, Any]) -> None:
    """Write a bare model so that `load` rebuilds it.

    Args:
        model: the module.
        path: the file; written atomically.
        model_config: its component mapping, ``{"name": ..., arguments}``.
    """
    state = {f"model.{k}": v for k, v in model.state_dict().items()}
    save({"state_dict": state, "visionlab": metadata({"model": model_config})}, path)


def _without_weight_sources(node: Any) -> Any:
    if isinstance(node, Mapping):
        return {k: _without_weight_sources(v) for k, v in node.items() if k not in _WEIGHT_SOURCES}
    if isinstance(node, list):
        return [_without_weight_sources(v) for v in node]
    return node


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


def export_encoder(
    model: nn.Module,
    path: str | Path,
    *,
    overwrite: bool = False,
    timm_name: str | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
) -> Path:
    """Write the encoder of ``model`` as a file that timm loads strictly, and verify it.

    ``timm.create_model(name, num_classes=0, checkpoint_path=path)`` takes the file. Beside it lies
    ``path`` with ``.json`` appended: timm name, arguments, image size, mean and std.

    Args:
        model: a model with a timm ``backbone``, or the backbone itself.
        path: ``.safetensors`` or ``.pth``.
        overwrite: replace an existing file.
        timm_name: timm's name of the architecture; taken from the backbone if it knows, else
            ``vit_base_patch16_224`` with every size given as an argument.
        mean: per-channel mean of the training images on a 0..1 scale, for the side-car.
        std: per-channel standard deviation, likewise.

    Raises:
        FileExistsError: ``path`` exists and ``overwrite`` is False.
        TypeError: the model has no timm backbone.
        ValueError: ``mean`` or ``std`` of another length than the channels.
        CheckpointError: timm does not read the file back as it is; nothing is replaced.

    Returns:
        The path of the side-car.
    """
    path = Path(path)
    if path.suffix not in (".safetensors", ".pth"):
        raise ValueError(
            f"cannot export to '{path.name}': the name must end in .safetensors or .pth"
        )
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; choose another name or pass overwrite=True")
    backbone = getattr(model, "backbone", model)
    if not hasattr(backbone, "pretrained_cfg") and not hasattr(backbone, "patch_embed"):
        raise TypeError(f"{type(model).__name__} has no timm backbone to export")
    state = {k: v.detach().cpu().contiguous() for k, v in backbone.state_dict().items()}
    card = _card(backbone, timm_name, mean, std)
    sidecar = path.with_name(path.name + ".json")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as scratch:
        new = Path(scratch) / path.name
        _write_state(state, new)
        _verify_export(card, new, state)  # what stood under the name stays until this holds
        new.replace(path)
    atomic.write_text(json.dumps(card, indent=2), sidecar)
    return sidecar


def _write_state(state: dict[str, Tensor], path: Path) -> None:
    if path.suffix == ".pth":
        save({"state_dict": state}, path)
        return
    from safetensors.torch import save as to_bytes

    with atomic.replacing(path) as file:
        file.write(to_bytes(state))


def _card(backbone: Any, name: str | None, mean: Any, std: Any) -> dict[str, Any]:
    cfg = getattr(backbone, "pretrained_cfg", None) or {}
    embed = backbone.patch_embed
    arguments = {
        "img_size": list(embed.img_size),
        "patch_size": list(embed.patch_size),
        "in_chans": int(embed.proj.in_channels),
        "embed_dim": int(backbone.embed_dim),
        "depth": len(backbone.blocks),
        "num_heads": int(backbone.blocks[0].attn.num_heads),
        "class_token": getattr(backbone, "cls_token", None) is not None,
        "reg_tokens": int(getattr(backbone, "num_reg_tokens", 0)),
    }
    for what, values in (("mean", mean), ("std", std)):
        if values is not None and len(values) != arguments["in_chans"]:
            raise ValueError(
                f"{what} has {len(values)} numbers, the encoder {arguments['in_chans']} channels"
            )
    architecture = name or cfg.get("architecture") or "vit_base_patch16_224"
    return {
        "timm_name": architecture,
        "arguments": {**arguments, "num_classes": 0, "global_pool": ""},
        "mean": list(mean or cfg.get("mean") or ()),
        "std": list(std or cfg.get("std") or ()),
    }


def _verify_export(card: Mapping[str, Any], path: Path, state: Mapping[str, Tensor]) -> None:
    """Load the written file the way a user of timm would and compare every tensor."""
    import timm

    arguments: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in card["arguments"].items()
    }
    again = timm.create_model(card["timm_name"], checkpoint_path=str(path), **arguments)
    for key, value in again.state_dict().items():
        if not torch.equal(value, state[key]):
            raise CheckpointError(f"the exported file {path} gives another '{key}'")
