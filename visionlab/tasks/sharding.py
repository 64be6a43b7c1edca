"""FSDP2 and activation checkpointing by one rule: a network is its blocks, and the rest.

Blocks are the members of what is called ``blocks`` (timm's and our transformers, decoders, the
stages of convolutional networks) or ``layer1`` .. ``layer4`` (residual networks). Each block is
gathered when it is run and dropped after it; what is left (embeddings, norms, heads, and all of a
network without blocks) is one unit. A tensor is cut along dimension 0: experts, (E, out, in), are
dealt out whole.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer
from torch.utils.checkpoint import checkpoint as recompute

from visionlab import checkpoint, sharded_checkpoint

_HOLDERS = re.compile(r"blocks|layer[1-4]")
# called on whole models besides forward; they too need the gathered weights
_ENTRANCES = ("encode", "reconstruct", "features", "predict")


def blocks(model: nn.Module) -> Iterator[nn.Module]:
    """The blocks of a network, in the order of its modules."""
    for name, module in model.named_modules():
        last = name.rpartition(".")[2]
        if isinstance(module, nn.ModuleList | nn.Sequential) and _HOLDERS.fullmatch(last):
            yield from module.children()


def shard(model: nn.Module, mesh: DeviceMesh) -> None:
    """Cut the parameters of ``model`` over the ranks of ``mesh``, in place.

    Raises:
        ValueError: parameters that are single numbers, which cannot be cut.
    """
    if isinstance(model, FSDPModule):
        return
    for parameter in model.parameters():  # FSDP2 takes no channels-last ones
        parameter.data = parameter.data.contiguous()
    for block in blocks(model):
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    for name in _ENTRANCES:
        if hasattr(model, name):
            register_fsdp_forward_method(model, name)


def is_sharded(model: nn.Module) -> bool:
    """Whether `shard` has been applied: then every rank must take part in a forward pass."""
    return isinstance(model, FSDPModule)


def local(tensor: Tensor) -> Tensor:
    """This rank's part of a cut tensor; any other tensor itself."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def checkpoint_activations(model: nn.Module) -> int:
    """Keep only the inputs of each block; the backward pass runs the block once more.

    Returns:
        The number of blocks.

    Raises:
        ValueError: the network has no blocks.
    """
    found = list(blocks(model))
    if not found:
        raise ValueError(
            f"{type(model).__name__} has no blocks to recompute; set "
            "trainer.activation_checkpointing=false"
        )
    for block in found:
        block.forward = partial(recompute, block.forward, use_reentrant=False)
    return len(found)


class FSDP2Strategy(ModelParallelStrategy):
    """Weights, gradients and optimiser state cut over all ranks; `Task.configure_model` cuts.

    Lightning's strategy, with checkpoints of this project: one plain file, the same as any other
    strategy writes and reads, or a file per rank (`visionlab.sharded_checkpoint`); both atomic.

    Args:
        shards: write a file per rank instead of gathering everything on rank 0.
    """

    def __init__(self, *, shards: bool = False) -> None:
        super().__init__(
            data_parallel_size=1, tensor_parallel_size=1, save_distributed_checkpoint=shards
        )
        self.shards = shards

    def setup_environment(self) -> None:
        """All ranks share one data-parallel mesh."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Weights: cut, or whole on rank 0."""
        assert self.lightning_module is not None
        return self._to_save(self.lightning_module.state_dict())

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """State in torch's own form: cut, or whole on rank 0."""
        bare = optimizer._optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
        return self._to_save(bare.state_dict())

    def _to_save(self, state: Any) -> Any:
        if self.shards:
            return state
        return _map_tensors(state, partial(_whole, keep=self.is_global_zero))

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None
    ) -> None:
        """Called on every rank."""
        path = Path(self.broadcast(str(filepath)))
        if self.shards:
            sharded_checkpoint.save(checkpoint, path)
        elif self.is_global_zero:
            self.checkpoint_io.save_checkpoint(checkpoint, path)

    def load_checkpoint(
        self, checkpoint_path: Any, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint of any strategy and any number of ranks into the cut tensors."""
        assert self.lightning_module is not None
        path = Path(self.broadcast(str(checkpoint_path)))
        content = checkpoint.read(path, tensors=False)
        own = self.lightning_module.state_dict()
        optimizers = content.get("optimizer_states", []) if self.optimizers else []
        parameters = [list(chain(*(g["params"] for g in o.param_groups))) for o in self.optimizers]
        if "shards" in content:
            targets = {"state_dict": own, "optimizer_states": parameters}
            sharded_checkpoint.load(
                content, path, lambda place: torch.empty_like(_target(targets, place))
            )
        else:
            for saved, params in zip(optimizers, parameters):
                for i, entry in saved["state"].items():
                    saved["state"][i] = {k: _like(v, params[i]) for k, v in entry.items()}
        state = {
            k: _like(v, own[k]) if k in own else v for k, v in content.pop("state_dict").items()
        }
        checkpoint.load_strictly(self.lightning_module, state, str(path))
        for optimizer, saved in zip(self.optimizers, optimizers):
            optimizer.load_state_dict(saved)
        return content


def _target(targets: Mapping[str, Any], place: Sequence[Any]) -> Tensor:
    """The tensor in memory whose shape and cut a saved one has."""
    if place[0] == "state_dict":
        return targets["state_dict"][place[1]]
    _, number, _, parameter, _ = place  # optimizer_states, number, "state", parameter, name
    return targets["optimizer_states"][number][parameter]


def _whole(tensor: Tensor, *, keep: bool) -> Tensor:
    """All of a cut tensor on the CPU; called on every rank, kept where it is saved."""
    if not isinstance(tensor, DTensor):
        return tensor
    whole = tensor.full_tensor()
    return whole.cpu() if keep else torch.empty(0)


def _like(tensor: Tensor, target: Tensor) -> Tensor:
    """``tensor`` cut as ``target`` is, if it is of its shape; every rank holds all of it."""
    if isinstance(tensor, DTensor) or not isinstance(target, DTensor):
        return tensor
    if tensor.shape != target.shape:
        return tensor
    on_device = tensor.to(target.device)
    return distribute_tensor(on_device, target.device_mesh, target.placements, src_data_rank=None)


def _map_tensors(state: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """``state`` with every tensor changed, in nested mappings and lists."""
    if isinstance(state, Tensor):
        return change(state)
    if isinstance(state, Mapping):
        return {k: _map_tensors(v, change) for k, v in state.items()}
    if isinstance(state, list):
        return [_map_tensors(v, change) for v in state]
    return state


def whole_state(module: nn.Module, *, keep: bool) -> dict[str, Tensor]:
    """The state dict of a cut module, gathered; called on every rank, filled where kept."""
    return _map_tensors(dict(module.state_dict()), partial(_whole, keep=keep))
