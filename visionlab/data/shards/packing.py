"""Packs a source into a folder of shards with several processes; goes on where it was stopped.

While it runs, the folder holds ``.packing``: the plan, and a record for each finished shard. The
index comes last, so a folder is either complete or no packed set at all.
"""

import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

import numpy as np

from visionlab.atomic import remove_leftovers, replacing, write_text
from visionlab.data.shards.index import INDEX, ROW, SAMPLES, Part, ShardIndex
from visionlab.data.shards.sources import Sample, Source, shard_rows
from visionlab.data.shards.writing import Encoding, write_record, write_shard

_WORK = ".packing"
Progress = Callable[[int, int], object]  # samples done, of how many


@dataclass(frozen=True)
class Packed:
    """What packing did: shards that were kept and made, and pictures that cannot be decoded."""

    kept: int
    made: int
    unreadable: list[str]


def pack(
    source: Source,
    target: Path,
    *,
    samples_per_shard: int = 1024,
    seed: int | None = 0,
    encoding: Encoding | None = None,
    processes: int = 1,
    progress: Progress = lambda done, total: None,
) -> Packed:
    """Pack a source. Started again after a kill it goes on; the result is the same, byte by byte.

    Args:
        source: what to pack.
        target: a new or empty folder, or one that was packed from the same source in the same way.
        samples_per_shard: of all shards but the last.
        seed: of the order in which samples are packed; None packs them as listed, which keeps
            their numbers and suits reading without a window only.
        encoding: how pictures are stored; as they are if None.
        processes: how many pack at a time.
        progress: told of samples that are packed.

    Raises:
        FileExistsError: the folder holds something else.
        OSError: no space left; finished shards are kept.
        RuntimeError: a packing process died.
        ValueError: arguments out of range, a picture that vanished.
    """
    encoding = encoding or Encoding()
    rows = shard_rows(len(source.samples), samples_per_shard)
    plan = {
        "source": source.fingerprint(),
        "kind": source.kind,
        "samples": len(source.samples),
        "samples_per_shard": samples_per_shard,
        "seed": seed,
        **asdict(encoding),
    }
    _claim(target, plan)
    names = [f"shard-{k:05d}.tar" for k in range(len(rows))]
    todo = [k for k, name in enumerate(names) if not _finished(target, name)]
    order = source.order(seed)
    make = partial(_make, target=target, root=source.root, encoding=encoding)
    jobs = ((names[k], rows[k], [source.samples[order[i]] for i in rows[k]]) for k in todo)
    packed = len(source.samples) - sum(len(rows[k]) for k in todo)
    progress(packed, len(source.samples))
    for count in _results(make, jobs, processes):
        packed += count
        progress(packed, len(source.samples))
    unreadable = _finish(target, source, plan, names)
    return Packed(len(rows) - len(todo), len(todo), unreadable)


def _claim(target: Path, plan: Mapping[str, Any]) -> None:
    """Make the folder ours, or see that it is already.

    Raises:
        FileExistsError: it holds something else.
    """
    if target.exists() and not target.is_dir():
        raise FileExistsError(f"{target} is a file; give a folder")
    started = target / _WORK / "plan.json"
    if started.is_file():
        _same(target, json.loads(started.read_text()), plan, "an unfinished packing")
        remove_leftovers(target)
    elif (target / INDEX).is_file():
        index = ShardIndex.from_json((target / INDEX).read_bytes(), str(target / INDEX))
        _same(target, index.packing, plan, "a packed set")
        (target / _WORK).mkdir(exist_ok=True)
        _records_again(target, index)
    elif target.is_dir() and any(p.name != _WORK for p in target.iterdir()):
        raise FileExistsError(f"{target} holds other files; give a new or empty folder")
    write_text(json.dumps(plan), started)


def _same(target: Path, there: Any, plan: Mapping[str, Any], what: str) -> None:
    there = there if isinstance(there, dict) else {}
    if other := sorted(k for k in plan if there.get(k) != plan[k]):
        changes = ", ".join(f"{k}: {there.get(k)} there, {plan[k]} now" for k in other)
        raise FileExistsError(
            f"{target} holds {what} of another source or with other options ({changes}); give "
            "another folder, or delete this one"
        )


def _records_again(target: Path, index: ShardIndex) -> None:
    """The records of a finished packing, from its table: to mend what is missing, and no more."""
    path = target / SAMPLES
    if not path.is_file() or _sha256_of(path) != index.samples.sha256:
        return
    table, first = np.load(path, allow_pickle=False), 0
    for part in index.shards:
        rows = table[first : first + part.count].tolist()
        record = {"size": part.size, "sha256": part.sha256, "rows": rows, "unreadable": []}
        write_record(record, _record(target, part.name))
        first += part.count


def _record(target: Path, name: str) -> Path:
    return target / _WORK / f"{name}.json"


def _finished(target: Path, name: str) -> bool:
    """Whether a shard is whole: it has a record, and the bytes that the record tells."""
    path, record_path = target / name, _record(target, name)
    if not path.is_file() or not record_path.is_file():
        return False
    try:
        record = json.loads(record_path.read_text())
    except ValueError:  # cut off by a power failure: records are not synced, shards are
        return False
    return path.stat().st_size == record["size"] and _sha256_of(path) == record["sha256"]


def _sha256_of(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _make(job: tuple[str, range, list[Sample]], *, target: Path, **options: Any) -> int:
    name, rows, samples = job
    record = write_shard(target / name, rows, samples, **options)
    write_record(record, _record(target, name))
    return len(rows)


def _results(make: Callable[[Any], int], jobs: Iterator[Any], processes: int) -> Iterator[int]:
    """Results as they come; few jobs wait at a time, so that a long list costs no memory."""
    if processes <= 1:
        yield from map(make, jobs)
        return
    context = get_context("spawn")
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_end_with_parent)
    try:
        waiting = {pool.submit(make, job) for _, job in zip(range(2 * processes), jobs)}
        while waiting:
            future = next(as_completed(waiting))
            waiting.remove(future)
            waiting.update(pool.submit(make, job) for job in islice(jobs, 1))
            yield future.result()
    except BrokenProcessPool as error:
        raise RuntimeError(
            "a packing process was killed (out of memory?); finished shards are kept: start the "
            "same command again, perhaps with fewer processes"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """End this process when the one that started it is killed; the pool would wait for ever."""
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _finish(
    target: Path, source: Source, plan: Mapping[str, Any], names: Sequence[str]
) -> list[str]:
    """Write the table, then the index, then forget the plan; returns the unreadable pictures."""
    tables, shards, unreadable = [], [], []
    for name in names:
        record = json.loads(_record(target, name).read_text())
        tables.append(np.array([tuple(row) for row in record["rows"]], ROW))
        shards.append(Part(name, record["size"], record["sha256"], len(record["rows"])))
        unreadable += record["unreadable"]
    with replacing(target / SAMPLES) as file:
        np.save(file, np.concatenate(tables))
    samples = target / SAMPLES
    index = ShardIndex(
        kind=source.kind,
        classes=list(source.classes),
        shards=shards,
        samples=Part(SAMPLES, samples.stat().st_size, _sha256_of(samples), len(source.samples)),
        packing=dict(plan),
        category_ids=list(source.category_ids),
    )
    write_text(index.to_json(), target / INDEX)
    shutil.rmtree(target / _WORK)
    return unreadable
