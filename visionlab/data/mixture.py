"""Several labelled sets, one task each, as one stream of steps.

A step is a list of *picks*; a pick is one batch of one task. Everything in a step is a pure
function of (seed, step), so a killed run goes on with the very samples that would have come next,
on any number of workers, and ranks agree on the tasks without talking.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import lightning as L
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from visionlab.data.images import IMAGENET_MEAN, IMAGENET_STD, check_spread, normalise
from visionlab.data.loading import KeyedLoader, rank_and_world
from visionlab.data.randomness import keyed_randomness
from visionlab.data.samples import IGNORE, need_samples
from visionlab.data.schedule import StepLoader, StepSchedule
from visionlab.registry import suggest

_SPLITS = ("train", "val", "test")
Batch = dict[str, Any]


class TaskData:
    """The data of one task.

    Args:
        datasets: "train", "val" and "test" (what a job needs), readers with ``kind`` and
            ``classes``; see `visionlab.data.samples`.
        batch_size: samples in a batch, over all ranks together.
        image_size: side in px of the square that pictures are padded to, right and bottom; one
            for all splits, or split -> side.
        transforms: split -> transform of a sample; none if a split is not named.
    """

    def __init__(
        self,
        datasets: Mapping[str, Dataset[Any]],
        batch_size: int,
        *,
        image_size: int | dict[str, int],
        transforms: Mapping[str, Callable[[Any], Any]] | None = None,
    ) -> None:
        if not datasets:
            raise ValueError("a task needs at least one split in 'datasets', got none")
        sides = {} if isinstance(image_size, int) else image_size
        for given in (datasets, transforms or {}, sides):
            for name in given:
                if name not in _SPLITS:
                    raise ValueError(f"no split '{name}'. {suggest(name, _SPLITS)}")
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; expected at least 1")
        if missing := [n for n in datasets if n not in sides and not isinstance(image_size, int)]:
            raise ValueError(f"image_size names no side for {', '.join(missing)}")
        for name, dataset in datasets.items():
            need_samples(len(dataset), f"the split '{name}'")  # type: ignore[arg-type]
        self.datasets, self.batch_size, self.image_size = dict(datasets), batch_size, image_size
        self.transforms = dict(transforms or {})

    def classes(self) -> list[str]:
        """Class names, equal in every split."""
        named = {s: list(getattr(d, "classes", ())) for s, d in self.datasets.items()}
        first, *others = named
        for other in others:
            if named[other] != named[first]:
                raise ValueError(
                    f"the splits '{first}' and '{other}' have different classes "
                    f"({len(named[first])} and {len(named[other])} names); give both one list"
                )
        return named[first]

    def side(self, split: str) -> int:
        """Side in px of the square that pictures of a split are padded to."""
        return self.image_size if isinstance(self.image_size, int) else self.image_size[split]

    def split(self, name: str) -> "TransformedSet":
        """One split with its transform.

        Raises:
            ValueError: there is no such split.
        """
        if name not in self.datasets:
            raise ValueError(f"the task has no split '{name}', only {sorted(self.datasets)}")
        return TransformedSet(self.datasets[name], self.transforms.get(name))


class TransformedSet(Dataset[dict[str, Any]]):
    """Samples of a data set as mappings, after a transform."""

    def __init__(self, dataset: Any, transform: Callable[[Any], Any] | None) -> None:
        self.dataset, self.transform = dataset, transform

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = self.dataset[index]
        if not isinstance(sample, Mapping):
            sample = {"image": sample[0], "label": sample[1]}
        sample = dict(sample) if self.transform is None else self.transform(dict(sample))
        return {**sample, "index": index}


class TaskMixture(L.LightningDataModule):
    """Loaders over the data of several tasks.

    Args:
        datasets: task -> its `TaskData`.
        schedule: "joint" puts every task into every step; "sampled" draws tasks.
        steps_per_epoch: steps that count as an epoch; if None, as many as show the largest set
            once ("joint") or as many samples as all sets hold ("sampled").
        alpha: "sampled" draws task t with probability ~ n_t^alpha: 0 uniform, 1 proportional.
        tasks_per_step: "sampled": picks in a step.
        spread: deal the picks of a step to the ranks, each whole, instead of splitting each pick
            over all ranks.
        num_workers: processes that decode, or "auto".
        mean: per channel, of images on a 0..1 scale.
        std: per channel, likewise.

    Raises:
        ValueError: no task, picks that cannot be dealt evenly, sizes out of range.
    """

    seed: int = 0  # the run's, set by `visionlab.tasks.training`

    def __init__(
        self,
        datasets: Mapping[str, TaskData],
        *,
        schedule: Literal["joint", "sampled"] = "joint",
        steps_per_epoch: int | None = None,
        alpha: float = 0.5,
        tasks_per_step: int = 1,
        spread: bool = False,
        num_workers: int | Literal["auto"] = 0,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        if not datasets:
            raise ValueError("a mixture needs at least one task in 'datasets', got none")
        if schedule not in ("joint", "sampled"):
            raise ValueError(f"no schedule '{schedule}'. {suggest(schedule, ('joint', 'sampled'))}")
        check_spread(mean, std)
        self.datasets = dict(datasets)
        self.schedule, self.alpha, self.tasks_per_step = schedule, alpha, tasks_per_step
        self.spread, self.num_workers = spread, num_workers
        self.steps_per_epoch = steps_per_epoch
        self.mean, self.std = tuple(mean), tuple(std)

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks, in their order."""
        return list(self.datasets)

    def step_schedule(self) -> StepSchedule:
        """Which samples of which task each training step holds."""
        return StepSchedule(
            {t: len(d.split("train")) for t, d in self.datasets.items()},
            {t: d.batch_size for t, d in self.datasets.items()},
            seed=self.seed,
            mode=self.schedule,
            alpha=self.alpha,
            tasks_per_step=self.tasks_per_step,
        )

    def train_dataloader(self) -> StepLoader:
        """Steps, each a list of picks; goes on where the trainer's step counter stands."""
        schedule = self.step_schedule()
        trainer = self.trainer
        return StepLoader(
            StepSet(self.datasets, schedule, spread=self.spread),
            steps_per_epoch=(
                schedule.steps_of_an_epoch()
                if self.steps_per_epoch is None
                else self.steps_per_epoch
            ),
            first_step=(lambda: trainer.global_step) if trainer is not None else (lambda: 0),
            images_per_step=schedule.images_per_step(rank_and_world()[1]),
            num_workers=self.num_workers,
        )

    def loaders(self, split: str) -> dict[str, KeyedLoader]:
        """Task -> its samples of a split, in order; tasks without that split are left out."""
        return {
            task: KeyedLoader(
                data.split(split),
                data.batch_size,
                seed=self.seed,
                num_workers=self.num_workers,
                collate=_Collate(task, data.side(split)),
            )
            for task, data in self.datasets.items()
            if split in data.datasets
        }

    def val_dataloader(self) -> list[KeyedLoader]:
        """One loader for each task that has a validation split."""
        return list(self.loaders("val").values())

    def test_dataloader(self) -> list[KeyedLoader]:
        """One loader for each task that has a test split."""
        return list(self.loaders("test").values())

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Normalise on the device: one batch, or the picks of a step."""
        if isinstance(batch, list):
            return [self.on_after_batch_transfer(pick, dataloader_idx) for pick in batch]
        return {**batch, "image": normalise(batch["image"], self.mean, self.std)}


class StepSet(Dataset[list[Batch]]):
    """Training steps by number: the picks of this rank, collated.

    Args:
        datasets: task -> its data.
        schedule: what each step holds.
        spread: deal whole picks to ranks instead of splitting each.
    """

    def __init__(
        self, datasets: Mapping[str, TaskData], schedule: StepSchedule, *, spread: bool = False
    ) -> None:
        self.schedule, self.spread = schedule, spread
        self._sets = {task: data.split("train") for task, data in datasets.items()}
        self._collate = {
            task: _Collate(task, data.side("train")) for task, data in datasets.items()
        }
        _, world = rank_and_world()
        if spread and schedule.picks_per_step % world:
            raise ValueError(
                f"{schedule.picks_per_step} picks in a step cannot be dealt evenly to {world} "
                "ranks; set data.spread=false or choose another tasks_per_step"
            )
        small = [t for t, data in datasets.items() if data.batch_size < world]
        if small and not spread:
            raise ValueError(
                f"the batch_size of {', '.join(small)} is below the number of ranks ({world})"
            )

    def __getitem__(self, step: int) -> list[Batch]:
        rank, world = rank_and_world()
        picks = self.schedule.picks(step)
        if self.spread:
            return [self._batch(task, keys) for task, keys in picks[rank::world]]
        return [self._batch(task, keys[rank::world]) for task, keys in picks]

    def _batch(self, task: str, keys: Sequence[tuple[int, int]]) -> Batch:
        samples = []
        number = self.schedule.tasks.index(task)
        for epoch, index in keys:
            with keyed_randomness(self.schedule.seed, number, epoch, index):
                samples.append(self._sets[task][index])
        return self._collate[task](samples)


class _Collate:
    """Samples of one task -> a batch; pictures are padded to one square."""

    def __init__(self, task: str, image_size: int) -> None:
        self.task, self.image_size = task, image_size

    def __call__(self, samples: Sequence[Mapping[str, Any]]) -> Batch:
        sizes = torch.tensor([list(s["image"].shape[-2:]) for s in samples])
        side = self.image_size
        if int(sizes.max()) > side:
            raise ValueError(
                f"a picture of '{self.task}' is {int(sizes.max())} px long, image_size is {side}; "
                "raise it or give a transform that resizes (fit_inside)"
            )
        batch: Batch = {
            "task": self.task,
            "image": torch.stack([_pad(s["image"], side, 0) for s in samples]),
            "index": torch.tensor([s["index"] for s in samples]),
        }
        if int(sizes.min()) < side:
            batch["size"] = sizes
        return batch | _collate_labels(samples, side)


def _collate_labels(samples: Sequence[Mapping[str, Any]], side: int) -> Batch:
    first = samples[0]
    if "label" in first:
        return {"label": torch.tensor([int(s["label"]) for s in samples])}
    if "mask" in first:
        return {"mask": torch.stack([_pad(s["mask"], side, IGNORE) for s in samples])}
    names = ["boxes", "labels", "crowd"]
    batch: Batch = {n: [s[n].as_subclass(Tensor) for s in samples] for n in names}
    if "masks" in first:
        batch["masks"] = [_pad(s["masks"], side, 0) for s in samples]
    return batch


def _pad(picture: Tensor, side: int, value: int) -> Tensor:
    plain = picture.as_subclass(Tensor)
    height, width = plain.shape[-2:]
    if (height, width) == (side, side):
        return plain
    return F.pad(plain, (0, side - width, 0, side - height), value=value)
