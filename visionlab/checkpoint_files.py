"""Plain checkpoint files: written whole or not at all, held against their checksums when read.

A checkpoint is a dict of tensors, numbers, strings and dicts; it loads with ``weights_only=True``.
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from visionlab import atomic

PREVIOUS = "previous.ckpt"  # beside last.ckpt: the one that it replaced


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
