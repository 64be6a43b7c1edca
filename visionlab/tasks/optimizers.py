"""Optimisers with their groups and schedule: what a recipe in a paper states in one line.

The learning rate may be given per 256 images, as masked autoencoders do (arXiv 2111.06377,
Table 8): ``lr * images_per_step / 256``.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

Schedule = Literal["cosine", "constant", "linear", "step"]
_MILESTONES = (8 / 9, 26 / 27)  # of ViTDet's 184,375 steps: 163,889 and 177,546


class Recipe:
    """Learning rate, decay groups, warm-up and schedule; subclasses choose the optimiser.

    After a linear warm-up the rate follows half a cosine or a line down to ``min_lr``, stays
    ("constant"), or falls to a tenth after 8/9 and again after 26/27 of all steps ("step", the
    detection recipe of arXiv 2203.16527).
    """

    def __init__(
        self,
        lr: float,
        *,
        weight_decay: float,
        lr_per_images: int | None,
        warmup_epochs: float,
        schedule: Schedule,
        min_lr: float,
        layer_decay: float | None,
    ) -> None:
        if not 0 < lr < math.inf:
            raise ValueError(f"lr is {lr}; expected a positive number")
        if layer_decay is not None and not 0 < layer_decay <= 1:
            raise ValueError(f"layer_decay is {layer_decay}; expected a number in (0, 1]")
        self.lr = lr
        self.weight_decay = weight_decay
        self.lr_per_images = lr_per_images
        self.warmup_epochs = warmup_epochs
        self.schedule = schedule
        self.min_lr = min_lr
        self.layer_decay = layer_decay

    def build(
        self, model: nn.Module, *, images_per_step: int, steps: int, steps_per_epoch: float
    ) -> tuple[Optimizer, LambdaLR]:
        """The optimiser of the trainable parameters of ``model`` and its per-step schedule.

        Args:
            model: parameters without gradient are left out.
            images_per_step: images that one optimiser step sees, over all ranks.
            steps: optimiser steps of the whole run.
            steps_per_epoch: optimiser steps per epoch, for the warm-up.
        """
        scale = images_per_step / self.lr_per_images if self.lr_per_images else 1.0
        optimizer = self._optimizer(self._groups(model), self.lr * scale)
        warmup = round(self.warmup_epochs * steps_per_epoch)
        floor = self.min_lr / (self.lr * scale)
        return optimizer, _by_group(optimizer, warmup, steps, floor, self.schedule)

    def _groups(self, model: nn.Module) -> list[dict[str, Any]]:
        from timm.optim import param_groups_layer_decay, param_groups_weight_decay

        exempt = no_decay_names(model)
        if self.layer_decay is None:
            return param_groups_weight_decay(model, self.weight_decay, no_weight_decay_list=exempt)
        return param_groups_layer_decay(
            model, self.weight_decay, no_weight_decay_list=exempt, layer_decay=self.layer_decay
        )

    def _optimizer(self, groups: list[dict[str, Any]], lr: float) -> Optimizer:
        raise NotImplementedError


def no_decay_names(model: nn.Module) -> set[str]:
    """Parameters that sub-modules exempt from weight decay (tokens, position embeddings).

    1-D parameters (biases, norms) are exempt besides. The published MAE code decays its class and
    mask tokens; here they are exempt, as in later recipes.
    """
    names = set()
    for prefix, module in model.named_modules():
        exempt = getattr(module, "no_weight_decay", None)
        for name in exempt() if callable(exempt) else ():
            names.add(f"{prefix}.{name}" if prefix else str(name))
    return names


def _by_group(
    optimizer: Optimizer, warmup: int, steps: int, floor: float, schedule: str
) -> LambdaLR:
    def factor(scale: float) -> Callable[[int], float]:
        return lambda step: scale * _factor(step, warmup, steps, floor, schedule)

    return LambdaLR(optimizer, [factor(g.get("lr_scale", 1.0)) for g in optimizer.param_groups])


def _factor(step: int, warmup: int, steps: int, floor: float, schedule: str) -> float:
    """Share of the peak learning rate at ``step``: linear warm-up, then the schedule."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if schedule == "constant":
        return 1.0
    if schedule == "step":
        return 0.1 ** sum(step >= m * steps for m in _MILESTONES)
    progress = min((step - warmup) / max(steps - warmup, 1), 1.0)
    if schedule == "linear":
        return floor + (1 - floor) * (1 - progress)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))


class AdamW(Recipe):
    """AdamW with decoupled weight decay; defaults of MAE pre-training (arXiv 2111.06377)."""

    def __init__(
        self,
        lr: float = 1.5e-4,
        *,
        betas: tuple[float, float] = (0.9, 0.95),
        weight_decay: float = 0.05,
        lr_per_images: int | None = None,
        warmup_epochs: float = 0.0,
        schedule: Schedule = "cosine",
        min_lr: float = 0.0,
        layer_decay: float | None = None,
    ) -> None:
        super().__init__(
            lr,
            weight_decay=weight_decay,
            lr_per_images=lr_per_images,
            warmup_epochs=warmup_epochs,
            schedule=schedule,
            min_lr=min_lr,
            layer_decay=layer_decay,
        )
        self.betas = betas

    def _optimizer(self, groups: list[dict[str, Any]], lr: float) -> Optimizer:
        return torch.optim.AdamW(groups, lr=lr, betas=self.betas, fused=True)


class Adam(Recipe):
    """Adam without weight decay."""

    def __init__(
        self,
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        warmup_epochs: float = 0.0,
        schedule: Schedule = "constant",
        min_lr: float = 0.0,
    ) -> None:
        super().__init__(
            lr,
            weight_decay=0.0,
            lr_per_images=None,
            warmup_epochs=warmup_epochs,
            schedule=schedule,
            min_lr=min_lr,
            layer_decay=None,
        )
        self.betas = betas

    def _optimizer(self, groups: list[dict[str, Any]], lr: float) -> Optimizer:
        return torch.optim.Adam(groups, lr=lr, betas=self.betas, fused=True)


class SGD(Recipe):
    """Stochastic gradient descent with momentum."""

    def __init__(
        self,
        lr: float = 0.1,
        *,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        lr_per_images: int | None = None,
        warmup_epochs: float = 0.0,
        schedule: Schedule = "cosine",
    ) -> None:
        super().__init__(
            lr,
            weight_decay=weight_decay,
            lr_per_images=lr_per_images,
            warmup_epochs=warmup_epochs,
            schedule=schedule,
            min_lr=0.0,
            layer_decay=None,
        )
        self.momentum = momentum

    def _optimizer(self, groups: list[dict[str, Any]], lr: float) -> Optimizer:
        return torch.optim.SGD(groups, lr=lr, momentum=self.momentum)


class Lars(SGD):
    """LARS (arXiv 1708.03888), by timm; the optimiser of the MAE linear probe."""

    def _optimizer(self, groups: list[dict[str, Any]], lr: float) -> Optimizer:
        from timm.optim import Lars as TimmLars

        return TimmLars(groups, lr=lr, momentum=self.momentum)


def images_per_step(batch_size: int, accumulate: int, world_size: int) -> int:
    """Images that one optimiser step sees."""
    return batch_size * accumulate * world_size


def names_of(groups: Sequence[dict[str, Any]], model: nn.Module) -> list[set[str]]:
    """Parameter names of each group, for logs and tests."""
    names = {id(p): n for n, p in model.named_parameters()}
    return [{names[id(p)] for p in group["params"]} for group in groups]
