"""The shared part of every task: optimiser, keyed randomness, guard against non-finite losses."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import lightning as L
import torch
from lightning.pytorch.plugins.precision import MixedPrecision, Precision
from lightning.pytorch.utilities.enums import GradClipAlgorithmType
from torch import Tensor, nn

from visionlab.checkpoint import metadata
from visionlab.data.randomness import seed_all
from visionlab.tasks.launch import check_same_start
from visionlab.tasks.optimizers import AdamW, Recipe, images_per_step
from visionlab.tasks.sample_mean import SampleMean
from visionlab.tasks.sharding import is_sharded, local, shard


class Task(L.LightningModule):
    """Trains ``model``; a subclass says how a batch becomes a loss.

    A step with a gradient that is not finite on any rank changes nothing: it is skipped and
    counted, and the run stops with a message after ``nonfinite_limit`` of them.

    Args:
        model: the component; a checkpoint holds its weights under ``model.``.
        optimizer: the recipe; AdamW with its defaults if None.
        nonfinite_limit: number of skipped steps after which the run stops.
        compile: run the model through ``torch.compile``.
    """

    job: ClassVar[Literal["fit", "predict"]] = "fit"
    # some parameters get no gradient in some steps: DDP has to look for them
    unused_parameters: ClassVar[bool] = False
    # set by `visionlab.tasks.training`
    seed: int = 0
    run_config: Mapping[str, Any] | None = None  # resolved; goes into the checkpoint
    output: Path | None = None  # run folder

    def __init__(
        self,
        model: nn.Module,
        optimizer: Recipe | None = None,
        *,
        nonfinite_limit: int = 10,
        compile: bool = False,
    ) -> None:
        super().__init__()
        self.model = model
        self.recipe = optimizer or AdamW()
        self.nonfinite_limit = nonfinite_limit
        self._skipped: Tensor
        self.register_buffer("_skipped", torch.zeros(()), persistent=False)
        self.means = nn.ModuleDict()
        self._loader_state: dict[str, Any] | None = None
        if compile:
            model.compile()

    def loss(self, batch: Any, batch_idx: int) -> Tensor | Mapping[str, Tensor]:
        """Loss of a training batch: a scalar, or a mapping with ``"loss"`` and what to log."""
        raise NotImplementedError(f"{type(self).__name__} does not say how a batch becomes a loss")

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """One step; logs every entry of the loss mapping."""
        parts = self.loss(batch, batch_idx)
        parts = {"loss": parts} if isinstance(parts, Tensor) else parts
        if self.logs_are_due():
            for name, value in parts.items():
                self.log(f"train/{name}", value, prog_bar=name == "loss", sync_dist=True)
        return parts["loss"]

    def logs_are_due(self) -> bool:
        """Whether this step is logged; else several ranks need not agree on its values.

        Lightning would have them meet twice for each value of every step.
        """
        trainer = self.trainer
        if trainer.world_size == 1:
            return True
        step = trainer.fit_loop.epoch_loop._batches_that_stepped + 1
        return step % max(trainer.log_every_n_steps, 1) == 0  # type: ignore[attr-defined]

    def log_mean(self, name: str, value: Tensor, *, count: int) -> None:
        """Log the mean over the samples of a validation, of which a rank may hold more.

        Args:
            name: of the figure.
            value: mean over this batch.
            count: samples in this batch.
        """
        key = name.replace(".", "_")
        if key not in self.means:
            self.means[key] = SampleMean().to(self.device)
        self.means[key].update(value, count)  # type: ignore[operator]
        self.log(
            name,
            self.means[key],  # type: ignore[arg-type]
            on_step=False,
            on_epoch=True,
            batch_size=count,
            metric_attribute=f"means.{key}",  # Lightning looks for them once, some come later
        )

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Dropout, mixup and the like draw from (seed, rank, epoch, step): nothing to restore."""
        seed_all(self.seed, self.global_rank, self.current_epoch, batch_idx)

    def configure_optimizers(self) -> Any:
        """Optimiser and per-step schedule from the recipe and the run's length."""
        trainer = self.trainer
        if math.isinf(trainer.num_training_batches):  # not loaded yet, where max_steps ends the run
            trainer.fit_loop.setup_data()
        steps = int(trainer.estimated_stepping_batches)
        loader: Any = trainer.train_dataloader
        batch_size = int(getattr(loader, "batch_size", 1) or 1)
        optimizer, schedule = self.recipe.build(
            self.model_to_train(),
            images_per_step=images_per_step(
                batch_size, trainer.accumulate_grad_batches, trainer.world_size
            ),
            steps=steps,
            steps_per_epoch=max(trainer.num_training_batches / trainer.accumulate_grad_batches, 1),
        )
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    def model_to_train(self) -> nn.Module:
        """The module whose parameters the optimiser gets."""
        return self.model

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put the resolved config and the position within the epoch beside the weights."""
        if self.run_config is not None:
            checkpoint["visionlab"] = metadata(self.run_config)
        loader: Any = self.trainer.train_dataloader
        if hasattr(loader, "state_dict"):
            checkpoint["train_loader"] = loader.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the position for `on_train_start`."""
        self._loader_state = checkpoint.get("train_loader")

    def configure_model(self) -> None:
        """Under FSDP2, cut the model over the ranks."""
        mesh = getattr(self, "_device_mesh", None)
        if mesh is not None:
            shard(self.model, mesh["data_parallel"])

    def on_train_start(self) -> None:
        """Go on at the saved position within the epoch.

        Lightning restores loaders too, but not once `estimated_stepping_batches` has been asked.
        """
        check_same_start(self.global_step)
        if self._loader_state is not None:
            loader: Any = self.trainer.train_dataloader
            loader.load_state_dict(self._loader_state)
            self._loader_state = None

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """Skip the step everywhere if any gradient is not finite (after reduction over ranks).

        Under fp16 the gradient scaler meets overflows now and then by design, and skips itself.
        """
        if getattr(self.trainer.precision_plugin, "scaler", None) is not None:
            return
        norms = [torch._foreach_norm([local(p.grad) for p in g["params"] if p.grad is not None])
                 for g in optimizer.param_groups]  # fmt: skip
        flat = [n for group in norms for n in group]
        if not flat:
            return
        bad = (~torch.isfinite(torch.stack(flat).sum())).float()
        if is_sharded(self.model):  # each rank saw its own part
            bad = self.trainer.strategy.reduce(bad, reduce_op="max")
        self._skipped += bad
        if getattr(optimizer, "_step_supports_amp_scaling", False):
            optimizer.found_inf = bad  # fused optimisers skip on the device, without a sync
        elif bad.item():
            for group in optimizer.param_groups:
                for p in group["params"]:
                    p.grad = None

    def clip_gradients(
        self,
        optimizer: Any,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: Any = None,
    ) -> None:
        """Clip, also under bf16, where Lightning refuses fused optimisers for a scaler's sake.

        Raises:
            ValueError: there is a scaler (fp16): fused optimisers unscale gradients in their step.
        """
        plugin = self.trainer.precision_plugin
        if not gradient_clip_val or not isinstance(plugin, MixedPrecision):
            super().clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
            return
        if plugin.scaler is not None:
            raise ValueError(
                f"gradients cannot be clipped at {gradient_clip_val} under fp16, whose scaled "
                "gradients only the optimiser's step unscales; set trainer.precision=bf16-mixed, "
                "or do not clip"
            )
        algorithm = GradClipAlgorithmType(gradient_clip_algorithm or "norm")
        Precision.clip_gradients(plugin, optimizer, gradient_clip_val, algorithm)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Read the counter now and then: reading it on every step would stall a GPU."""
        every = max(self.trainer.log_every_n_steps, 1)  # type: ignore[attr-defined]
        if self.device.type == "cpu" or self.global_step % every == 0:
            self._stop_if_diverged()

    def on_train_epoch_end(self) -> None:
        """Read the counter at least once per epoch."""
        self._stop_if_diverged()

    def _stop_if_diverged(self) -> None:
        count = int(self._skipped.item())
        if count > self.nonfinite_limit:
            raise RuntimeError(
                f"{count} steps had a loss or gradient that is not finite (limit "
                f"{self.nonfinite_limit}, now at step {self.global_step}); lower the learning "
                "rate, clip gradients (trainer.gradient_clip_val=1) or use bf16 instead of fp16"
            )

    def on_fit_end(self) -> None:
        """Say how many steps were skipped, if any."""
        if count := int(self._skipped.item()):
            self.print(f"{count} steps with a non-finite loss were skipped")
