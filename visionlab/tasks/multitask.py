"""Heterogeneous multi-task training: several data sets, one task each, one model.

A step holds picks, one batch of one task each (`visionlab.data.mixture`). Each pick is run
forward and backward by itself, so that one graph is alive at a time; gradients add up and the
optimiser moves once. With several ranks a pick's loss is its sum over all ranks by the count over
all ranks, so that the step is that of one process with the same global batch; a parameter that no
rank used keeps no gradient and does not move (AdamW would decay it and follow old momentum). One
term differs where picks are dealt to ranks: the information between tasks and experts then sees
the live rows of all their tasks, in one process that of the pick at hand and the running table.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from visionlab.backbones.protocol import layer_groups
from visionlab.data.loading import rank_and_world
from visionlab.heads.multitask import MultiTaskModel
from visionlab.registry import suggest
from visionlab.tasks.base import Task
from visionlab.tasks.multitask_metrics import TaskMetric, create_metric
from visionlab.tasks.optimizers import Recipe
from visionlab.tasks.sharding import is_sharded
from visionlab.tasks.task_weights import create_weights

log = logging.getLogger("visionlab")


class MultiTaskTraining(Task):
    """Trains a `MultiTaskModel` on a `TaskMixture`.

    Args:
        model: backbone and heads.
        optimizer: the recipe.
        weights: weight of each task's loss (1 where not named), or "uncertainty".
        routing: weights of the losses on routing (``information``, ``balance``, ``z``,
            ``concentration``); see `visionlab.moe.losses.RoutingLoss`. Needs a MoE backbone.
        routing_decay: decay of the running table of experts and tasks.
        gradient_clip: largest norm of the gradient; no clipping if None.
        nonfinite_limit: number of skipped steps after which the run stops.

    Raises:
        TypeError: the model has no heads.
        ValueError: losses on routing without a MoE backbone, a weight for an unknown task.
    """

    unused_parameters: ClassVar[bool] = True  # heads and routers of tasks that are not in a step

    def __init__(
        self,
        model: nn.Module,
        optimizer: Recipe | None = None,
        *,
        weights: dict[str, float] | Literal["uncertainty"] | None = None,
        routing: dict[str, float] | None = None,
        routing_decay: float = 0.99,
        gradient_clip: float | None = None,
        nonfinite_limit: int = 10,
    ) -> None:
        if not isinstance(model, MultiTaskModel):
            raise TypeError(
                f"multi-task training needs a MultiTaskModel, got {type(model).__name__}; "
                "name 'multitask' as the model"
            )
        if gradient_clip is not None and not gradient_clip > 0:
            raise ValueError(f"gradient_clip is {gradient_clip}; expected a positive norm, or null")
        super().__init__(model, optimizer, nonfinite_limit=nonfinite_limit)
        self.model: MultiTaskModel
        self.automatic_optimization = False
        self.gradient_clip = gradient_clip
        self.weights = create_weights(model.tasks, weights)
        self.routing_loss: Any = _routing_loss(model, routing, routing_decay)
        self.metrics = nn.ModuleDict({t: create_metric(h) for t, h in model.heads.items()})

    def model_to_train(self) -> nn.Module:
        """The model, and the weights of the tasks where they are learnt."""
        return _TrainedParts([self.model, self.weights])

    # ------------------------------------------------------------ training

    def on_fit_start(self) -> None:
        """Check that data and model speak of the same tasks, and that ranks may differ."""
        data: Any = getattr(self.trainer, "datamodule", None)
        if data is not None and hasattr(data, "datasets"):
            check_data(self.model, data.datasets)
        wrapper = self.trainer.strategy.model
        if isinstance(wrapper, DistributedDataParallel) and not wrapper.find_unused_parameters:
            raise ValueError(
                "a step uses only the heads and routers of its tasks; set "
                "trainer.strategy=ddp_find_unused_parameters_true"
            )
        if is_sharded(self.model):
            self._check_sharded()

    def _check_sharded(self) -> None:
        """FSDP2 needs the same heads on every rank, and cuts no single numbers."""
        if self._pick_is_whole():
            raise ValueError(
                "FSDP2 sums gradients of the same heads on all ranks, data.spread deals different "
                "tasks to them; set data.spread=false, or trainer.strategy=ddp"
            )
        if any(p.requires_grad for p in self.weights.parameters()):
            raise ValueError(
                "FSDP2 cannot cut learnt weights of tasks, which are single numbers; give fixed "
                "task.weights, or set trainer.strategy=ddp"
            )

    def training_step(self, batch: list[dict[str, Any]], batch_idx: int) -> Tensor:
        """One optimiser step over the picks of ``batch``."""
        optimizer: Any = self.optimizers()
        optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.device)
        for i, pick in enumerate(batch):
            with self._gradients_to_ranks(last=i + 1 == len(batch)):
                loss = self.pick_loss(pick)
                self.manual_backward(loss)
            total = total + loss.detach()
        if self.gradient_clip is not None:
            self.clip_gradients(optimizer, self.gradient_clip, "norm")
        optimizer.step()
        self.lr_schedulers().step()  # type: ignore[union-attr]
        if self.routing_loss is not None:
            self.routing_loss.step()
            self._log_information()
        if self.logs_are_due():
            self.log("train/loss", total, prog_bar=True, sync_dist=True)
        return total

    def pick_loss(self, pick: dict[str, Any]) -> Tensor:
        """Loss of one pick, such that the mean over ranks of the gradients is the whole pick's."""
        task = pick["task"]
        routing: list[Any] = []
        outputs = self.model(pick["image"], task=task, size=pick.get("size"), routing=routing)
        loss = self.model.head(task).loss(outputs, pick)  # type: ignore[operator]
        _, world = rank_and_world()
        whole = self._pick_is_whole()
        count = loss.count if whole else _over_ranks(loss.count)
        mean = loss.total / count.clamp(min=1)
        if self.logs_are_due():
            self.log(f"train/{task}", mean.detach() if whole else _over_ranks(mean))
        # the mean over ranks divides by their number, though the pick is on one or on all of them
        value = self.weights(task, mean * world, float(world if whole else 1))
        if self.routing_loss is None:
            return value
        terms = self.routing_loss(routing)
        for name, term in terms.items():
            self.log(f"train/routing_{name}", term.detach())
        return value + sum(terms.values())

    def _log_information(self) -> None:
        """Mutual information of tasks and experts in the running table, mean over layers."""
        if self.global_step % max(self.trainer.log_every_n_steps, 1) == 0:  # type: ignore[attr-defined]
            for name, value in self.routing_loss.information().items():
                self.log(f"train/information_{name}", value.mean())

    def _pick_is_whole(self) -> bool:
        """Whether a pick lies on one rank instead of being split over all."""
        data: Any = getattr(self.trainer, "datamodule", None)
        return bool(getattr(data, "spread", False))

    @contextmanager
    def _gradients_to_ranks(self, *, last: bool) -> Iterator[None]:
        """Gradients of all but the last pick stay local; the last backward sends their sum."""
        wrapper = self.trainer.strategy.model
        if last or not isinstance(wrapper, DistributedDataParallel):
            yield
        else:
            with wrapper.no_sync():
                yield

    # ------------------------------------------------------------ validation

    def validation_step(
        self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Collect predictions of one batch."""
        self.collect(batch)

    def test_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> None:
        """Collect predictions of one batch."""
        self.collect(batch)

    def collect(self, batch: Mapping[str, Any]) -> None:
        """Add the predictions of one batch to the metric of its task."""
        task = batch["task"]
        prediction = self.model.predict(batch["image"], task=task, size=batch.get("size"))
        self.metric(task).update(prediction, batch)

    def metric(self, task: str) -> TaskMetric:
        """The metric of a task."""
        metric = self.metrics[task]
        assert isinstance(metric, TaskMetric)
        return metric

    def on_validation_epoch_end(self) -> None:
        """Log every figure and their mean over tasks."""
        self._log_figures("val")

    def on_test_epoch_end(self) -> None:
        """Log every figure and their mean over tasks."""
        self._log_figures("test")

    def _log_figures(self, split: str) -> None:
        mains = []
        seen = [t for t in self.model.tasks if _has_data(self.metric(t))]
        for task in seen:
            figures = self.metric(task).compute()
            self.metric(task).reset()
            mains.append(figures[self.metric(task).main])
            for name, value in figures.items():
                self.log(f"{split}/{task}_{name}", value, sync_dist=False)
        if mains:
            self.log(f"{split}/mean", sum(mains) / len(mains), prog_bar=True, sync_dist=False)


class _TrainedParts(nn.ModuleList):
    """Model and weights of tasks, with the depth of each parameter for layer decay."""

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """As `MultiTaskModel.group_matcher`; the weights of tasks learn at the full rate."""
        return layer_groups("0.backbone.")


def _over_ranks(value: Tensor) -> Tensor:
    """The sum over ranks, detached."""
    value = value.detach().clone()
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(value)
    return value


def check_data(model: MultiTaskModel, datasets: Mapping[str, Any]) -> None:
    """Every data set has a head of its kind and number of classes.

    Raises:
        ValueError: it has not.
    """
    for task, data in datasets.items():
        head: Any = model.head(task)
        classes = data.classes()
        if classes and len(classes) != head.num_classes:
            raise ValueError(
                f"the data of '{task}' have {len(classes)} classes, its head {head.num_classes}; "
                f"set task.model.heads.{task}.num_classes={len(classes)}"
            )
        for split, dataset in data.datasets.items():
            kind = getattr(dataset, "kind", head.kind)
            if kind != head.kind:
                raise ValueError(
                    f"the {split} data of '{task}' are for {kind}, its head is for {head.kind}"
                )
    idle = [t for t in model.tasks if t not in datasets]
    if idle:  # as when a task is added to a trained model
        log.info("without data, and so not trained: %s", ", ".join(idle))


def _has_data(metric: TaskMetric) -> bool:
    return any(int(m.update_count) > 0 for m in metric.children())  # type: ignore[arg-type]


def _routing_loss(
    model: MultiTaskModel, weights: Mapping[str, float] | None, decay: float
) -> nn.Module | None:
    if not model.routed:
        if weights:
            raise ValueError(
                f"losses on routing ({', '.join(weights)}) need a MoE backbone, for example "
                "'moe_vit'; leave task.routing out"
            )
        return None
    from visionlab.moe.losses import ROUTING_LOSSES, RoutingLoss

    options: dict[str, Any] = dict(weights or {})
    for name in options:
        if name not in ROUTING_LOSSES:
            raise ValueError(f"no loss on routing '{name}'. {suggest(name, ROUTING_LOSSES)}")
    return RoutingLoss.for_model(model.backbone, decay=decay, **options)
