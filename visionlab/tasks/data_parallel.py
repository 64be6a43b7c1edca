"""DDP whose ranks meet for the gradients of a step and, where it can be, for nothing else."""

import inspect

import lightning as L
from lightning.pytorch.strategies import DDPStrategy
from torch import nn
from torch.nn.parallel import DistributedDataParallel

# the second name since torch 2.14, which warns of the first
_BUFFERS = (
    "forward_sync_buffers"
    if "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
    else "broadcast_buffers"
)


class DataParallel(DDPStrategy):
    """Lightning's DDP, with options that follow from the task and the run.

    Buffers travel from rank 0 before every forward only if the model has batch statistics: all
    others are constants, or the same on every rank. On CPUs the graph is declared static where it
    is, which takes work off cores that compute and communicate at once.
    """

    def configure_ddp(self) -> None:
        """Wrap the task, which is known by now."""
        task = self.lightning_module
        assert task is not None
        self._ddp_kwargs |= {
            _BUFFERS: has_batch_statistics(task),
            "gradient_as_bucket_view": True,
            "static_graph": self.root_device.type == "cpu"
            and not self._ddp_kwargs.get("find_unused_parameters")
            and task.trainer.accumulate_grad_batches == 1,
        }
        super().configure_ddp()


def has_batch_statistics(module: nn.Module) -> bool:
    """Whether a part of it gathers statistics of its own rank's batches, as batch norm does."""
    return any(
        isinstance(m, nn.modules.batchnorm._NormBase) and m.running_mean is not None
        for m in module.modules()
    )


def meet_once_a_step(trainer: L.Trainer) -> None:
    """Leave out Lightning's question before every step whether rank 0 got a SIGTERM.

    `visionlab.tasks.saving` asks for every rank, and not so often: the answer has to be waited
    for, and with it all work that is queued on the device.
    """
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]
