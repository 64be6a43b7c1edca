"""Schedules of strategy, colour and ratio over epochs: functions of the epoch, without state.

A resumed run therefore continues where it was. The ratio changes between epochs only, so all masks
of an epoch keep the same number of patches (static shapes for torch.compile).
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal

from torch import Tensor

from visionlab.masking.base import Grid, Mask, check_ratio
from visionlab.masking.colors import ColorMask
from visionlab.masking.create import create_mask
from visionlab.masking.keys import Draws
from visionlab.masking.spectrum import Blend

Curve = Literal["constant", "linear", "cosine"]


class ScheduledMask(Mask):
    """Strategy and ratio as functions of the epoch.

    Args:
        stages: each a mapping with ``epoch`` (its first epoch), ``name`` (a strategy or colour)
            and that strategy's own options; the first begins at epoch 0.
        transition: ``step`` changes at once; ``linear`` blends the covariance from one stage's
            colour to the next over the stage (colours only).
        ratio: hidden share at epoch 0.
        ratio_end: hidden share at epoch ``epochs`` and after; default: constant.
        curve: course of the ratio in between.
        epochs: length of the run, needed with ``ratio_end``.

    Example:
        >>> from visionlab.masking import create_mask
        >>> stages = [{"epoch": 0, "name": "red"}, {"epoch": 100, "name": "green"}]
        >>> mask = create_mask("schedule", grid=(14, 14), stages=stages)
        >>> mask.at(120).spectrum.describe()["kind"]
        'green'
    """

    def __init__(
        self,
        grid: Grid | None = None,
        *,
        stages: Sequence[Mapping[str, Any]],
        transition: Literal["step", "linear"] = "step",
        ratio: float = 0.75,
        ratio_end: float | None = None,
        curve: Curve = "linear",
        epochs: int | None = None,
    ) -> None:
        if transition not in ("step", "linear"):
            raise ValueError(f"transition is 'step' or 'linear', got {transition!r}")
        if curve not in ("constant", "linear", "cosine"):
            raise ValueError(f"curve is 'constant', 'linear' or 'cosine', got {curve!r}")
        if ratio_end is not None and (epochs is None or epochs <= 0):
            raise ValueError(f"ratio_end needs epochs, the length of the run, got epochs={epochs}")
        self.starts, self.masks = _parse_stages(stages)
        if transition == "linear" and not all(isinstance(m, ColorMask) for m in self.masks):
            raise ValueError("a linear transition blends colours; use transition='step' here")
        self.transition, self.curve, self.epochs = transition, curve, epochs
        self.ratio_end = None if ratio_end is None else check_ratio(ratio_end)
        self.needs_images = any(m.needs_images for m in self.masks)
        self._cache: dict[tuple[int, float, float, Grid | None], Mask] = {}
        super().__init__(grid, ratio=ratio)

    def _bind(self, grid: Grid) -> None:
        super()._bind(grid)
        for ratio in {self.ratio, self.ratio_end or self.ratio}:
            for mask in self.masks:
                mask.with_ratio(ratio).with_grid(grid)  # a stage that cannot work fails at once

    def ratio_at(self, epoch: float) -> float:
        """Hidden share during an epoch."""
        if self.ratio_end is None or self.epochs is None or self.curve == "constant":
            return self.ratio
        progress = min(max(epoch / self.epochs, 0.0), 1.0)
        if self.curve == "cosine":
            progress = (1 - math.cos(math.pi * progress)) / 2
        return self.ratio + (self.ratio_end - self.ratio) * progress

    def at(self, epoch: float | None) -> Mask:
        """The mask of an epoch.

        Raises:
            ValueError: no epoch given.
        """
        if epoch is None:
            raise ValueError("a scheduled mask depends on the epoch: pass epoch=... when drawing")
        epoch = math.floor(epoch)
        stage = max((i for i, start in enumerate(self.starts) if start <= epoch), default=0)
        share = self._share(stage, epoch)
        key = (stage, share, self.ratio_at(epoch), self.grid)
        if key not in self._cache:
            if len(self._cache) >= 8:  # one per epoch: the past ones are not needed again
                self._cache.clear()
            self._cache[key] = self._build(stage, share, key[2])
        return self._cache[key]

    def _share(self, stage: int, epoch: int) -> float:
        """How far stage ``stage`` has gone over to the next."""
        if self.transition == "step" or stage + 1 == len(self.starts):
            return 0.0
        start, end = self.starts[stage], self.starts[stage + 1]
        return max(epoch - start, 0) / (end - start)

    def _build(self, stage: int, share: float, ratio: float) -> Mask:
        mask = self.masks[stage]
        if share > 0:
            here, there = mask, self.masks[stage + 1]
            assert isinstance(here, ColorMask)
            assert isinstance(there, ColorMask)
            spectrum = Blend(((here.spectrum, 1 - share), (there.spectrum, share)))
            mask = ColorMask(color=spectrum, boundary=here.boundary)
        return mask.with_ratio(ratio).with_grid(self.bound_grid)

    def scores(self, draws: Draws, images: Tensor | None = None) -> Tensor:
        """Scores of all patches; see `Mask.scores`."""
        raise ValueError("a scheduled mask depends on the epoch: call at(epoch) first")

    def _parameters(self) -> dict[str, Any]:
        stages = [self._build(i, 0.0, self.ratio).describe() for i in range(len(self.masks))]
        return {
            "stages": [{"epoch": e, **s} for e, s in zip(self.starts, stages)],
            "transition": self.transition,
            "ratio_end": self.ratio_end,
            "curve": self.curve,
            "epochs": self.epochs,
        }


def _parse_stages(stages: Sequence[Mapping[str, Any]]) -> tuple[list[float], list[Mask]]:
    starts, masks = [], []
    for stage in stages:
        if "epoch" not in stage or "name" not in stage:
            raise ValueError(f"a stage names its 'epoch' and its mask ('name'), got {dict(stage)}")
        options = {k: v for k, v in stage.items() if k not in ("epoch", "name")}
        starts.append(stage["epoch"])
        masks.append(create_mask(stage["name"], **options))
    if not starts or starts[0] != 0:
        raise ValueError(f"the first stage begins at epoch 0, got stages at {starts}")
    if any(b <= a for a, b in pairwise(starts)):
        raise ValueError(f"the epochs of the stages must increase, got {starts}")
    return starts, masks
