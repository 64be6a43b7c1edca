"""A checkpoint whose large tensors lie in one safetensors file per rank.

``last.ckpt`` stays a small plain file: everything else, and the name, size and checksum of each
file of the folder beside it (``last.ckpt.shards-*``). It is replaced only when that folder is
complete, so that a kill at any moment leaves the old checkpoint or the new one, whole.

torch.distributed.checkpoint writes and reads the shards, also on another number of ranks, through
its safetensors storage: its own format keeps the metadata in a pickle, which runs code on loading.
"""

import logging
import re
import shutil
import uuid
import warnings
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.tensor import DTensor

from visionlab import checkpoint

log = logging.getLogger("visionlab")

Place = list[str | int]


def save(content: Mapping[str, Any], path: Path) -> None:
    """Write a checkpoint with sharded tensors; called on every rank.

    Raises:
        OSError: some rank could not write; the old checkpoint is intact. Raised on every rank.
    """
    plain, cut = _take_out(dict(content), [])
    folder = path.with_name(_on_first(lambda: f"{path.name}.shards-{uuid.uuid4().hex[:12]}"))
    problem, files = "", {}
    try:
        _quietly(
            dcp.save,
            {k: t for k, (_, t) in cut.items()},
            storage_writer=HuggingFaceStorageWriter(str(folder), save_distributed=True),
        )
        files = {f.name: _stamp(f) for f in folder.glob(f"shard-{dist.get_rank() + 1:05d}-*")}
    except CheckpointException as error:  # no Exception, and the same one on every rank
        problem = "; ".join(f"rank {r}: {cause[0]}" for r, cause in error.failures.items())
    except OSError as error:
        problem = str(error)
    everywhere = _gather((problem, files))
    problems = [p for p, _ in everywhere if p]
    if not problems:
        record = {
            "folder": folder.name,
            "files": {name: stamp for _, own in everywhere for name, stamp in own.items()},
            "places": {k: place for k, (place, _) in cut.items()},
        }
        problems = _on_first(lambda: _finish(path, folder, {**plain, "shards": record}))
    if problems:
        _on_first(lambda: shutil.rmtree(folder, ignore_errors=True))
        raise OSError(
            f"could not write {folder} ({problems[0]}); what stood in {path} before is intact. "
            "Free some space or choose another output folder"
        )


def _finish(path: Path, folder: Path, content: Mapping[str, Any]) -> list[str]:
    earlier = path.with_name(checkpoint.PREVIOUS)
    try:
        checkpoint.save(content, path, keep=earlier if path != earlier else None)
    except OSError as error:
        return [str(error)]
    try:  # from here on the new checkpoint is in place
        kept = checkpoint.read(earlier, tensors=False) if earlier.is_file() else {}
    except (OSError, checkpoint.CheckpointError) as error:
        log.warning("older shards in %s are left alone: %s", path.parent, error)
        return []
    used = {folder.name, kept.get("shards", {}).get("folder")}
    for old in path.parent.glob(f"{path.name}.shards-*"):
        if old.name not in used:
            shutil.rmtree(old, ignore_errors=True)
    return []


def load(
    content: dict[str, Any], path: Path, empty: Callable[[Sequence[str | int]], Tensor]
) -> None:
    """Put the sharded tensors back into ``content``, in place; called on every rank.

    Args:
        content: what ``last.ckpt`` holds.
        path: where it lies.
        empty: a tensor to fill for each place, cut as this run cuts it.

    Raises:
        CheckpointError: shards are missing or damaged. Raised on every rank.
    """
    folder, record = _record(content, path)
    files = sorted(record["files"].items())
    problems = [p for name, s in files[dist.get_rank() :: dist.get_world_size()]
                if (p := _damage(folder / name, s))]  # fmt: skip
    _raise_if([p for own in _gather(problems) for p in own], path)
    tensors = {key: empty(place) for key, place in record["places"].items()}
    _fill(tensors, HuggingFaceStorageReader(str(folder)), path)
    _put_back(content, record["places"], tensors)


def load_whole(content: dict[str, Any], path: Path) -> None:
    """As `load`, in one process, into whole tensors on the CPU."""
    folder, record = _record(content, path)
    problems = [
        p for name, s in sorted(record["files"].items()) if (p := _damage(folder / name, s))
    ]
    _raise_if(problems, path)
    reader = HuggingFaceStorageReader(str(folder))
    sizes: Any = reader.read_metadata().state_dict_metadata
    if absent := sorted(set(record["places"]) - set(sizes)):
        _raise_if([f"no shard holds {absent[0]}"], path)
    tensors = {
        k: torch.empty(sizes[k].size, dtype=sizes[k].properties.dtype) for k in record["places"]
    }
    _fill(tensors, reader, path, no_dist=True)
    _put_back(content, record["places"], tensors)


def consolidate(path: str | Path, output: str | Path, *, overwrite: bool = False) -> Path:
    """Write a sharded checkpoint as one plain file, which `visionlab.load` and any run take.

    Raises:
        FileExistsError: ``output`` exists and ``overwrite`` is False.
        CheckpointError: shards are missing or damaged.
    """
    output = Path(output)
    if output.exists() and not overwrite:
        raise FileExistsError(f"{output} exists; choose another name or pass overwrite=True")
    checkpoint.save(checkpoint.read(path), output)
    return output


# ---------------------------------------------------------------- the parts of a checkpoint


def _take_out(content: Any, place: Place) -> tuple[Any, dict[str, tuple[Place, Tensor]]]:
    """``content`` without its cut tensors, and those by key."""
    cut: dict[str, tuple[Place, Tensor]] = {}
    if not isinstance(content, Mapping | list):
        return content, cut
    items = list(content.items() if isinstance(content, Mapping) else enumerate(content))
    kept: list[tuple[Any, Any]] = []
    for name, value in items:
        here = [*place, name]
        if isinstance(value, DTensor):
            cut[".".join(map(str, here))] = (here, value)
            kept += [] if isinstance(content, Mapping) else [(name, None)]
            continue
        inner, found = _take_out(value, here)
        cut |= found
        kept.append((name, inner))
    return (dict(kept) if isinstance(content, Mapping) else [v for _, v in kept]), cut


def _put_back(
    content: dict[str, Any], places: Mapping[str, Place], tensors: Mapping[str, Tensor]
) -> None:
    for key, (*parents, last) in places.items():
        node: Any = content
        for name in parents:
            node = node[name]
        node[last] = tensors[key]
    del content["shards"]


def _record(content: Mapping[str, Any], path: Path) -> tuple[Path, dict[str, Any]]:
    """Folder and table of the shards; a stranger's file may name no other place."""
    record = content["shards"]
    named = [record["folder"], *record["files"]]
    if not all(isinstance(n, str) and re.fullmatch(r"[\w.-]+", n) and n != ".." for n in named):
        raise checkpoint.CheckpointError(f"{path} names shards outside its folder: {named[:3]}")
    return path.with_name(record["folder"]), record


def _stamp(file: Path) -> list[int]:
    """Size in bytes and CRC-32."""
    size = checksum = 0
    with file.open("rb") as stream:
        while part := stream.read(1 << 22):
            size, checksum = size + len(part), zlib.crc32(part, checksum)
    return [size, checksum]


def _damage(file: Path, stamp: Sequence[int]) -> str:
    if not file.is_file():
        return f"{file.name} is missing"
    try:
        whole = _stamp(file) == list(stamp)
    except OSError as error:  # told to all ranks: one that raised alone would leave them waiting
        return f"{file.name} cannot be read ({error.strerror or error})"
    return "" if whole else f"{file.name} is truncated or damaged"


def _raise_if(problems: Sequence[str], path: Path) -> None:
    if problems:
        more = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
        raise checkpoint.CheckpointError(
            f"the shards of {path} are not whole: {problems[0]}{more}; copy the file together "
            "with its folder"
        )


# ---------------------------------------------------------------- all ranks together


def _gather(value: Any) -> list[Any]:
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, value)
    return found


def _on_first(function: Callable[[], Any]) -> Any:
    """What ``function`` returns on rank 0, where alone it is called.

    Raises:
        Exception: what it raised there; on the other ranks a RuntimeError that tells it.
    """
    value: Any = None
    failure: Exception | None = None
    if dist.get_rank() == 0:
        try:
            value = function()
        except Exception as error:  # raised below, when nobody waits any longer
            failure = error
    box = [(value, failure and f"{type(failure).__name__}: {failure}")]
    dist.broadcast_object_list(box, src=0)
    if failure is not None:
        raise failure
    value, told = box[0]
    if told:
        raise RuntimeError(f"rank 0 failed while a checkpoint was written: {told}")
    return value


def _fill(
    tensors: dict[str, Tensor], reader: HuggingFaceStorageReader, path: Path, **options: Any
) -> None:
    try:
        _quietly(dcp.load, tensors, storage_reader=reader, **options)
    except CheckpointException as error:
        causes = "; ".join(str(cause[0]) for cause in error.failures.values())
        raise checkpoint.CheckpointError(f"{path} does not fit this model: {causes}") from error


def _quietly(function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
    with warnings.catch_warnings():
        # "torch.distributed is uninitialized, assuming a single process": as meant
        warnings.filterwarnings("ignore", message=".*torch.distributed is.*", category=UserWarning)
        function(*args, **kwargs)
