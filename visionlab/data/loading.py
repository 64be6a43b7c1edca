"""A loader whose order and augmentations are a function of (seed, epoch, index), and that resumes.

Nothing depends on the number of workers or on what was drawn before, so a run that is killed in
the middle of an epoch goes on with the very batch that would have come next.
"""

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal, Protocol

import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from visionlab.data.randomness import mix, restored_randomness, seed_host
from visionlab.data.workers import shield

log = logging.getLogger("visionlab")

Key = tuple[int, int]  # (epoch, index)

_STRIDE = 7919  # a prime: the sample in place of an unreadable one comes from elsewhere


class UnreadableSampleError(ValueError):
    """A sample that cannot be decoded; the loader names it, counts it and takes another.

    Args:
        name: of the sample, for messages.
        cause: what is wrong with it.
    """

    def __init__(self, name: str, cause: object) -> None:
        self.name, self.cause = name, str(cause)
        super().__init__(name, self.cause)  # what an unpickled one is made from

    def __str__(self) -> str:
        return f"{self.name}: {self.cause}"


class DamagedDataError(RuntimeError):
    """Data that is missing or damaged as a whole (a shard); the run stops with its message."""


def permutation(length: int, seed: int, epoch: int) -> torch.Tensor:
    """The shuffled order of an epoch: (length,) int64."""
    generator = torch.Generator().manual_seed(mix(seed, epoch, 0x5A))
    return torch.randperm(length, generator=generator)


class FetchesAhead(Protocol):
    """Fetches what a rank will read; told of the number of samples that are done."""

    def __call__(self, done: int) -> None:
        """Fetch what comes soon."""

    def close(self) -> None:
        """Give up what has not begun."""


class KeyedSampler:
    """Batches of (epoch, index): a keyed permutation, cut into the shares of the ranks.

    Args:
        length: number of samples.
        batch_size: samples per batch and rank.
        seed: of the permutation.
        shuffle: permute, anew in each epoch.
        drop_last: leave out what fills no whole batch on every rank; otherwise the ranks' shares
            differ by at most one sample, no sample is repeated, and every rank has the same number
            of batches, none empty: collectives in the middle of an epoch would wait for ever.
        shuffled: (seed, epoch) -> order of the samples; a permutation of all of them if None.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        *,
        seed: int,
        shuffle: bool,
        drop_last: bool,
        shuffled: Callable[[int, int], torch.Tensor] | None = None,
    ) -> None:
        self.length, self.batch_size = length, batch_size
        self.shuffled = shuffled or partial(permutation, length)
        self.seed, self.shuffle, self.drop_last = seed, shuffle, drop_last
        self.epoch = 0
        self.start = 0  # batches of the epoch to pass over, once

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning at the start of each epoch."""
        self.epoch = epoch

    def order(self) -> list[int]:
        """Sample indices of this rank in this epoch."""
        indices = torch.arange(self.length)
        if self.shuffle:
            indices = self.shuffled(self.seed, self.epoch)
        rank, world = rank_and_world()
        if self.drop_last:
            per_rank = self.batch_size * len(self)
            return indices[rank : per_rank * world : world].tolist()
        return indices[rank::world].tolist()

    def __len__(self) -> int:
        _, world = rank_and_world()
        if self.drop_last:
            return self.length // (self.batch_size * world)
        per_rank = -(-self.length // world)
        return min(-(-per_rank // self.batch_size), self.length // world)

    def __iter__(self) -> Iterator[list[Key]]:
        shares, start = self.batches(), self.start
        self.start = 0
        for share in shares[start:]:
            yield [(self.epoch, i) for i in share]

    def batches(self) -> list[list[int]]:
        """Sample indices of this rank in this epoch, cut into batches.

        With several ranks and an incomplete end, all batches are of nearly the same size, so that
        a rank with one sample less than another still has as many batches.
        """
        order, size, count = self.order(), self.batch_size, len(self)
        if self.drop_last or rank_and_world()[1] == 1:
            return [order[b * size : (b + 1) * size] for b in range(count)]
        return [part.tolist() for part in torch.tensor(order).tensor_split(count)]


def rank_and_world() -> tuple[int, int]:
    """This process' rank and the number of processes."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


class KeyedLoader:
    """Iterates over ``dataset`` in keyed batches; state is the position within the epoch.

    A sample is a mapping, or an (image, label) pair as torchvision's datasets give; the batch is
    a mapping with ``index``. A dataset with a method ``batch(indices)`` is asked for whole
    batches (fast for arrays in memory; such a dataset draws nothing at random). One with
    ``shuffled_order(seed, epoch)`` has its own order, and ``fetch_ahead(indices)`` tells one what
    this rank will read: it returns a callable that takes the number of samples that are done.

    Args:
        dataset: map-style dataset.
        batch_size: per rank.
        seed: of order and augmentation.
        shuffle: permute in each epoch.
        drop_last: leave out an incomplete last batch.
        num_workers: processes that decode; ``"auto"`` takes the cores of this machine.
        unreadable_limit: number of samples that may be unreadable before the run stops.
        collate: how samples become a batch; torch's ``default_collate`` if None.

    Raises:
        ValueError: empty dataset, fewer samples than one batch with ``drop_last``, more workers
            than cores.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        batch_size: int,
        *,
        seed: int = 0,
        shuffle: bool = False,
        drop_last: bool = False,
        num_workers: int | Literal["auto"] = 0,
        unreadable_limit: int = 10,
        collate: Any = None,
    ) -> None:
        length = len(dataset)  # type: ignore[arg-type]
        _check_sizes(length, batch_size, drop_last)
        self.dataset, self.batch_size = dataset, batch_size
        self.sampler = KeyedSampler(
            length,
            batch_size,
            seed=seed,
            shuffle=shuffle,
            drop_last=drop_last,
            shuffled=getattr(dataset, "shuffled_order", None),
        )
        self.batch_sampler = None  # Lightning asks any loader with a sampler for one
        workers = check_workers(num_workers)
        self._loader = DataLoader(
            _Keyed(dataset, seed, collate or default_collate, unreadable_limit),
            batch_sampler=self.sampler,  # type: ignore[arg-type]
            collate_fn=_as_it_is,
            num_workers=workers,
            worker_init_fn=shield,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=workers > 0,
            generator=torch.Generator(),  # else each epoch draws from the global one
        )
        self.unreadable: dict[str, str] = {}
        self.unreadable_limit = unreadable_limit
        self._position = 0
        self._resume_at = 0

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Any]:
        self._position = self.sampler.start = self._resume_at % max(len(self), 1)
        self._resume_at = 0
        ahead: FetchesAhead | None = None
        fetch_ahead = getattr(self.dataset, "fetch_ahead", None)
        try:
            for batch, unreadable in self._loader:
                if isinstance(batch, DamagedDataError):
                    raise batch
                self._count(unreadable)
                if fetch_ahead is not None:  # its threads start after the workers have forked
                    ahead, fetch_ahead = fetch_ahead(self.sampler.order()), None
                self._position += 1
                if ahead is not None:
                    ahead(self._position * self.batch_size)
                yield batch
        finally:
            if ahead is not None:
                ahead.close()

    def _count(self, unreadable: Mapping[str, str]) -> None:
        for name, cause in unreadable.items():
            if name not in self.unreadable:
                log.warning("unreadable, another sample takes its place: %s (%s)", name, cause)
        self.unreadable.update(unreadable)
        if len(self.unreadable) > self.unreadable_limit:
            raise RuntimeError(
                f"{len(self.unreadable)} unreadable samples, more than the limit of "
                f"{self.unreadable_limit}: {', '.join(list(self.unreadable)[:5])}, ...; mend or "
                "remove them, or raise data.unreadable_limit"
            )

    def state_dict(self) -> dict[str, int]:
        """Position in batches within the epoch, and what a batch was."""
        return {"position": self._position, "length": len(self), **self._batch()}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on at a saved position: on any number of ranks and workers, if ``drop_last``.

        Raises:
            ValueError: in the middle of an epoch, batches that are no equal parts of those of
                before.
        """
        position, now = int(state["position"]), self._batch()
        before = {key: int(state.get(key, value)) for key, value in now.items()}
        if position >= state.get("length", len(self)):
            position = 0
        uneven = before != now and not self.sampler.drop_last
        if position and (uneven or before["global_batch"] % now["global_batch"]):
            raise ValueError(
                "the checkpoint lies in the middle of an epoch of batches of "
                f"{before['global_batch']} on {before['ranks']} ranks, this run has "
                f"{now['global_batch']} on {now['ranks']}; choose data.batch_size x devices = "
                f"{before['global_batch']} or a divisor of it (and drop_last), so that no sample "
                "is lost or seen twice"
            )
        self._resume_at = position * (before["global_batch"] // now["global_batch"])

    def _batch(self) -> dict[str, int]:
        _, world = rank_and_world()
        return {"global_batch": self.batch_size * world, "ranks": world}


class _Keyed(Dataset[Any]):
    """Whole batches of a dataset under keyed randomness; unreadable samples are replaced."""

    def __init__(self, dataset: Any, seed: int, collate: Any, limit: int) -> None:
        self.dataset, self.seed, self.collate, self.limit = dataset, seed, collate, limit

    def __getitems__(self, keys: Sequence[Key]) -> tuple[Any, dict[str, str]]:
        indices = [index for _, index in keys]
        if hasattr(self.dataset, "batch"):
            return {**self.dataset.batch(indices), "index": torch.tensor(indices)}, {}
        unreadable: dict[str, str] = {}
        try:
            with restored_randomness():  # once a batch: it costs 1/20 of decoding a picture
                samples = [self._sample(key, unreadable) for key in keys]
            return self.collate(samples), unreadable
        except DamagedDataError as error:
            return error, {}  # raised in a worker, it would arrive buried in a traceback

    def _sample(self, key: Key, unreadable: dict[str, str]) -> dict[str, Any]:
        epoch, index = key
        for attempt in range(self.limit + 2):
            i = (index + attempt * _STRIDE) % len(self.dataset)
            try:
                seed_host(self.seed, epoch, index)
                sample = self.dataset[i]
            except UnreadableSampleError as error:
                unreadable[error.name] = error.cause
                continue
            if not isinstance(sample, Mapping):
                sample = {"image": sample[0], "label": sample[1]}
            return {**sample, "index": i}
        # so many in a row: hand the names on, the loader stops past its limit
        raise RuntimeError(
            f"{len(unreadable)} unreadable samples in a row, from {next(iter(unreadable))} on; "
            "mend or remove them, or raise data.unreadable_limit"
        )


def _as_it_is(batch: Any) -> Any:
    return batch


def _check_sizes(length: int, batch_size: int, drop_last: bool) -> None:
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; expected at least 1")
    if length == 0:
        raise ValueError("the dataset is empty; check its folder and split")
    _, world = rank_and_world()
    if drop_last and length < batch_size * world:
        raise ValueError(
            f"the dataset has {length} samples, fewer than one batch of {batch_size} on each of "
            f"{world} ranks; lower data.batch_size"
        )
    if length < world:
        raise ValueError(
            f"the dataset has {length} samples for {world} ranks; use at most {length} ranks"
        )


def check_workers(num_workers: int | Literal["auto"]) -> int:
    """Number of workers, at most the cores that this process may use.

    Raises:
        ValueError: more workers than cores, or a negative number.
    """
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    if num_workers == "auto":
        return cores
    if not 0 <= num_workers <= cores:
        raise ValueError(
            f"num_workers is {num_workers}, but this process may use {cores} cores; set "
            f"data.num_workers to 0..{cores} or auto"
        )
    return num_workers
