"""Fetches the shards of a remote set before the workers ask for them."""

import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from visionlab.data.loading import DamagedDataError

_THREADS = 4


class FetchAhead:
    """Calls ``fetch`` for each shard that a rank will need, some samples early, in threads.

    Args:
        fetch: gets one shard by its position.
        shards: (samples,) shard of each sample, in the order in which the rank reads them.
        horizon: how many samples early.
    """

    def __init__(
        self, fetch: Callable[[int], object], shards: Sequence[int] | np.ndarray, *, horizon: int
    ) -> None:
        self._fetch, self._horizon = fetch, horizon
        found, first = np.unique(np.asarray(shards), return_index=True)
        by_need = np.argsort(first)
        self._pending = [(int(first[i]), int(found[i])) for i in by_need[::-1]]  # soonest last
        self._last = np.zeros(int(found.max()) + 1, np.int64)
        np.maximum.at(self._last, np.asarray(shards), np.arange(len(shards)))
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="fetch-ahead")

    def __call__(self, done: int) -> None:
        """Tell how many samples are done; what is needed soon is fetched."""
        while self._pending and self._pending[-1][0] <= done + self._horizon:
            _, shard = self._pending.pop()
            if self._last[shard] >= done:  # a resumed epoch has passed some
                self._pool.submit(self._quietly, shard)
        if not self._pending:
            self._pool.shutdown(wait=False)

    def _quietly(self, shard: int) -> None:
        # the worker that needs the shard meets the same failure, and reports it
        with contextlib.suppress(DamagedDataError, OSError):
            self._fetch(shard)

    def close(self) -> None:
        """Drop what has not begun."""
        self._pending.clear()
        self._pool.shutdown(wait=False, cancel_futures=True)
