"""Training of learned proximal networks: denoising, then proximal matching in stages.

Fang et al., "What's in a Prior? Learned Proximal Networks for Inverse Problems", ICLR 2024, Alg. 1.
The noise is drawn on the device from the step's key, so a resumed run sees the same noise.
"""

import math
import time
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from visionlab.data.randomness import mix
from visionlab.proximal.losses import ProximalMatchingSchedule, denoising_loss
from visionlab.proximal.network import ProximalNetwork
from visionlab.tasks.base import Task
from visionlab.tasks.optimizers import Adam, Recipe


class ProximalMatching(Task):
    """Trains a `ProximalNetwork` on the noise level, or range, that the network states.

    Args:
        model: the network; its ``noise_level`` says what noise is added. In a range, each sample
            has its own level, drawn uniformly in the logarithm.
        optimizer: recipe; its learning rate is the peak, its own schedule is not used. Adam at
            1e-3 if None.
        pretrain: loss to begin with.
        pretrain_share: share of the steps; 1 trains with that loss alone.
        pretrain_floor: factor of the learning rate at the end of pre-training.
        gammas: of the proximal matching stages, falling.
        gamma_unit: ``"sqrt_n"``, or ``"noise"``: multiples of sqrt(n) times the noise level (a
            range of levels needs it; the official 0.08 at level 0.1 is 0.8).
        lr_factors: factor of the learning rate in each stage, or one for all.
        warmup: share of the steps.
        noise_key: ``"step"`` draws the noise of a batch on the device from (seed, rank, step);
            ``"sample"`` that of each sample, on the CPU, from (seed, epoch, index): the same run on
            any number of ranks with the same global batch.
        validation_levels: noise levels of the validation PSNR; the network's own, or the ends and
            the geometric middle of its range, if None.
        nonfinite_limit: skipped steps before the run stops.
        compile: run the network through ``torch.compile``.

    Raises:
        ValueError: the network states no noise level, or ``gamma_unit`` does not suit its range.
    """

    model: ProximalNetwork

    def __init__(
        self,
        model: ProximalNetwork,
        optimizer: Recipe | None = None,
        *,
        pretrain: Literal["l1", "l2"] = "l1",
        pretrain_share: float = 0.6,
        pretrain_floor: float = 0.1,
        gammas: Sequence[float] = (0.64, 0.32, 0.16, 0.08),
        gamma_unit: Literal["sqrt_n", "noise"] = "sqrt_n",
        lr_factors: float | Sequence[float] = 0.1,
        warmup: float = 0.02,
        noise_key: Literal["step", "sample"] = "step",
        validation_levels: Sequence[float] | None = None,
        nonfinite_limit: int = 10,
        compile: bool = False,
    ) -> None:
        super().__init__(
            model, optimizer or Adam(1e-3), nonfinite_limit=nonfinite_limit, compile=compile
        )
        if model.noise_level is None and model.noise_range is None:
            raise ValueError("the network must state its noise: set task.model.noise_level")
        if gamma_unit not in ("sqrt_n", "noise"):
            raise ValueError(f"gamma_unit is 'sqrt_n' or 'noise', got {gamma_unit!r}")
        if model.noise_range is not None and gamma_unit == "sqrt_n" and pretrain_share < 1:
            raise ValueError(
                "over a range of noise levels one gamma in absolute units suits none of them; set "
                "task.gamma_unit=noise and gammas in multiples of the noise level"
            )
        self.schedule = ProximalMatchingSchedule(
            pretrain=pretrain,
            pretrain_share=pretrain_share,
            pretrain_floor=pretrain_floor,
            gammas=gammas,
            lr_factors=lr_factors,
            warmup=warmup,
        )
        if noise_key not in ("step", "sample"):
            raise ValueError(f"noise_key is 'step' or 'sample', got {noise_key!r}")
        self.gamma_unit, self.noise_key = gamma_unit, noise_key
        self.validation_levels = tuple(validation_levels or _levels(model))

    def configure_optimizers(self) -> Any:
        """The recipe's optimiser under the schedule of the stages."""
        if self.trainer.estimated_stepping_batches == math.inf:
            raise ValueError("the stages need an end: set trainer.max_epochs or trainer.max_steps")
        steps = max(1, int(self.trainer.estimated_stepping_batches))
        optimizer, _ = self.recipe.build(
            self.model_to_train(), images_per_step=1, steps=steps, steps_per_epoch=steps
        )
        factor = LambdaLR(optimizer, lambda step: self.schedule.at(step / steps).lr_factor)
        return [optimizer], [{"scheduler": factor, "interval": "step"}]

    def loss(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """Denoising loss of the present stage."""
        clean = batch["image"]
        steps = max(1, int(self.trainer.estimated_stepping_batches))
        stage = self.schedule.at(self.global_step / steps)
        sigma, noise = self.draw(batch)
        noisy = clean + _spread(sigma, clean) * noise
        in_noise_units = self.model.noise_range is not None or self.gamma_unit == "noise"
        loss = denoising_loss(
            self.denoise(noisy, sigma),
            clean,
            stage.loss,
            gamma=stage.gamma,
            sigma=sigma if in_noise_units else None,
        )
        return {"loss": loss, "gamma": loss.new_tensor(stage.gamma or 0.0)}

    def draw(self, batch: Any) -> tuple[Tensor, Tensor]:
        """(B,) noise levels, and standard normal noise of the shape of the images.

        The noise is the batch's own, where it brings some.
        """
        clean = batch["image"]
        if "noise" in batch:
            return self.draw_levels(clean), batch["noise"]
        if self.noise_key == "step":  # from the step's generators, see `Task`
            return self.draw_levels(clean), torch.randn_like(clean)
        keys = [(self.seed, self.current_epoch, i) for i in batch["index"].tolist()]
        shares, noise = zip(*(_draws_of_sample(key, clean.shape[1:]) for key in keys))
        return self._levels(torch.stack(shares).to(clean)), torch.stack(noise).to(clean)

    def draw_levels(self, clean: Tensor) -> Tensor:
        """(B,) noise levels."""
        if self.model.noise_range is None:
            return self._levels(clean.new_zeros(len(clean)))
        return self._levels(torch.rand(len(clean), device=clean.device, dtype=clean.dtype))

    def _levels(self, share: Tensor) -> Tensor:
        """Levels at uniform numbers in [0, 1)."""
        if self.model.noise_range is None:
            assert self.model.noise_level is not None
            return torch.full_like(share, self.model.noise_level)
        low, high = self.model.noise_range
        return low * (high / low) ** share

    def denoise(self, noisy: Tensor, sigma: Tensor) -> Tensor:
        """f(noisy), told the level if it is conditioned on it."""
        return self.model(noisy, sigma) if self.model.conditioned else self.model(noisy)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Log the mean PSNR (range 1, not clipped) at each level; the noise is always the same."""
        clean = batch["image"]
        noise = self.validation_noise(batch, batch_idx)
        for level in self.validation_levels:
            with torch.no_grad():
                found = self.denoise(clean + level * noise, clean.new_full((len(clean),), level))
            mean_square = (found - clean).square().flatten(1).mean(1)
            name = f"val/psnr_{level:.3g}"
            value = (-10 * mean_square.log10()).mean()
            self.log_mean(name, value, count=len(clean))
        # for curves of quality against time; of rank 0, over all its threads
        self.log(
            "val/cpu_minutes", time.process_time() / 60, batch_size=len(clean), rank_zero_only=True
        )

    def validation_noise(self, batch: Any, batch_idx: int) -> Tensor:
        """Standard normal noise of the shape of the images, the same at every validation."""
        clean = batch["image"]
        numbers = batch["index"].tolist() if "index" in batch else range(len(clean))
        keys = [(self.seed, batch_idx if "index" not in batch else 0, i, 0xDE) for i in numbers]
        return torch.stack([_draws_of_sample(key, clean.shape[1:])[1] for key in keys]).to(clean)


def _draws_of_sample(key: tuple[int, ...], shape: torch.Size) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(mix(*key, 0x5A3E))
    return torch.rand((), generator=generator), torch.randn(shape, generator=generator)


def _levels(model: ProximalNetwork) -> list[float]:
    if model.noise_range is None:
        assert model.noise_level is not None
        return [model.noise_level]
    low, high = model.noise_range
    return [low, math.sqrt(low * high), high]


def _spread(per_sample: Tensor, like: Tensor) -> Tensor:
    return per_sample.reshape(-1, *(1,) * (like.dim() - 1))
