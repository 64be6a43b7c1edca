"""Which samples of which task a training step holds, as a pure function of (seed, step)."""

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from visionlab.data.loading import DamagedDataError, UnreadableSampleError, check_workers
from visionlab.data.randomness import mix
from visionlab.data.workers import shield

Pick = tuple[str, list[tuple[int, int]]]  # task, then (epoch, index) of each sample
_CHUNK = 4096
_TOLD = (DamagedDataError, UnreadableSampleError)


class StepSchedule:
    """Picks of every step.

    The samples of a task come from an endless row of keyed permutations of its set, so that each
    sample is seen once before any is seen again, and batches are always full.

    Args:
        lengths: task -> number of samples.
        batch_sizes: task -> samples in one pick, over all ranks.
        seed: of tasks and permutations.
        mode: "joint": every task in every step; "sampled": tasks are drawn.
        alpha: "sampled" draws task t with probability ~ n_t^alpha.
        tasks_per_step: "sampled": picks in a step.
    """

    def __init__(
        self,
        lengths: Mapping[str, int],
        batch_sizes: Mapping[str, int],
        *,
        seed: int = 0,
        mode: Literal["joint", "sampled"] = "joint",
        alpha: float = 0.5,
        tasks_per_step: int = 1,
    ) -> None:
        if tasks_per_step < 1:
            raise ValueError(f"tasks_per_step is {tasks_per_step}; expected at least 1")
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha is {alpha}; expected 0 (uniform) to 1 (proportional)")
        self.tasks = list(lengths)
        self.lengths, self.batch_sizes = dict(lengths), dict(batch_sizes)
        self.seed, self.mode = seed, mode
        self.picks_per_step = len(self.tasks) if mode == "joint" else tasks_per_step
        weights = np.array([lengths[t] for t in self.tasks], np.float64) ** alpha
        self.probability = weights / weights.sum()

    def picks(self, step: int) -> list[Pick]:
        """Task and samples of each pick of a step."""
        return [(task, self._samples(task, draw)) for task, draw in self.draws(step)]

    def draws(self, step: int) -> list[tuple[str, int]]:
        """Task of each pick of a step, and how many times it was picked before."""
        if self.mode == "joint":
            return [(task, step) for task in self.tasks]
        found = []
        for pick in range(step * self.picks_per_step, (step + 1) * self.picks_per_step):
            tasks, before = self._chunk(pick // _CHUNK)
            here = pick % _CHUNK
            task = tasks[here]
            earlier = int((tasks[:here] == task).sum())
            found.append((self.tasks[task], int(before[task]) + earlier))
        return found

    @lru_cache(maxsize=4)  # noqa: B019  (a schedule lives as long as its run)
    def _chunk(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Tasks of a run of picks, and how often each task came in the runs before."""
        if number:
            tasks, before = self._chunk(number - 1)
            before = before + np.bincount(tasks, minlength=len(self.tasks))
        else:
            before = np.zeros(len(self.tasks), np.int64)
        rng = np.random.default_rng([self.seed, number])
        return rng.choice(len(self.tasks), size=_CHUNK, p=self.probability), before

    def _samples(self, task: str, draw: int) -> list[tuple[int, int]]:
        length, size = self.lengths[task], self.batch_sizes[task]
        rows = range(draw * size, (draw + 1) * size)
        return [(r // length, int(self._order(task, r // length)[r % length])) for r in rows]

    @lru_cache(maxsize=64)  # noqa: B019
    def _order(self, task: str, epoch: int) -> np.ndarray:
        key = mix(self.seed, self.tasks.index(task), epoch)
        return np.random.default_rng(key).permutation(self.lengths[task])

    def steps_of_an_epoch(self) -> int:
        """Steps that show the largest set once ("joint"), or hold as many picks as all sets."""
        batches = [-(-self.lengths[t] // self.batch_sizes[t]) for t in self.tasks]
        return max(batches) if self.mode == "joint" else -(-sum(batches) // self.picks_per_step)

    def images_per_step(self, world: int) -> int:
        """Images of a step on one of ``world`` ranks, on average."""
        sizes = np.array([self.batch_sizes[t] for t in self.tasks], np.float64)
        mean = sizes.sum() if self.mode == "joint" else self.probability @ sizes
        picks = 1 if self.mode == "joint" else self.picks_per_step
        return max(round(mean * picks / world), 1)


class StepLoader:
    """The steps of an epoch in order, from wherever the run stands.

    Args:
        steps: step number -> the picks of this rank.
        steps_per_epoch: length of an epoch.
        first_step: number of steps that the run has done; asked at the start of each epoch.
        images_per_step: for learning rates that are given per image.
        num_workers: processes that decode, or "auto".
    """

    def __init__(
        self,
        steps: Dataset[Any],
        *,
        steps_per_epoch: int,
        first_step: Callable[[], int],
        images_per_step: int,
        num_workers: int | Literal["auto"] = 0,
    ) -> None:
        if steps_per_epoch < 1:
            raise ValueError(f"steps_per_epoch is {steps_per_epoch}; expected at least 1")
        self.steps, self.steps_per_epoch, self.first_step = steps, steps_per_epoch, first_step
        self.batch_size = images_per_step
        self.num_workers = check_workers(num_workers)

    def __len__(self) -> int:
        return self.steps_per_epoch

    def __iter__(self) -> Iterator[Any]:
        first = self.first_step()
        last = (first // self.steps_per_epoch + 1) * self.steps_per_epoch
        loader = DataLoader(
            _Told(self.steps),
            batch_size=None,
            sampler=range(first, last),
            num_workers=self.num_workers,
            worker_init_fn=shield,
            collate_fn=_as_it_is,
            pin_memory=torch.cuda.is_available(),
        )
        for step in loader:
            if isinstance(step, _TOLD):
                raise step
            yield step

    def state_dict(self) -> dict[str, int]:
        """The length of an epoch; the position is the trainer's step counter."""
        return {"steps_per_epoch": self.steps_per_epoch}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Refuse to go on with epochs of another length.

        Raises:
            ValueError: the checkpoint has another.
        """
        if state["steps_per_epoch"] != self.steps_per_epoch:
            raise ValueError(
                f"the checkpoint has {state['steps_per_epoch']} steps in an epoch, this run "
                f"{self.steps_per_epoch}; keep data.steps_per_epoch, batch sizes and sets"
            )


class _Told(Dataset[Any]):
    """Hands errors about data on: raised in a worker, they would arrive buried in a traceback."""

    def __init__(self, steps: Dataset[Any]) -> None:
        self.steps = steps

    def __getitem__(self, step: int) -> Any:
        try:
            return self.steps[step]
        except _TOLD as error:
            return error


def _as_it_is(step: Any) -> Any:
    return step
