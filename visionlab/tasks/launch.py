"""What a config's ``trainer`` means where it is launched: alone, by torchrun, by SLURM's srun.

Whoever starts the processes knows how many they are, so the same config runs on one core, on eight
GPUs under torchrun and on a cluster under srun. Names that Lightning lacks are translated here.
"""

import logging
import os
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from visionlab.config import OWN_TRAINER_KEYS
from visionlab.data.loading import rank_and_world
from visionlab.tasks.data_parallel import DataParallel
from visionlab.tasks.sharding import FSDP2Strategy

log = logging.getLogger("visionlab")


def trainer_arguments(trainer: Mapping[str, Any], *, unused_parameters: bool) -> dict[str, Any]:
    """Arguments of Lightning's Trainer for the ``trainer`` section of a config.

    Args:
        trainer: the section; this project's own keys are left out of the result.
        unused_parameters: whether some parameters get no gradient in some steps, which DDP has to
            be told.
    """
    arguments = {k: v for k, v in trainer.items() if k not in OWN_TRAINER_KEYS}
    arguments |= _processes(arguments)
    _check_cores(arguments)
    arguments["strategy"] = _strategy(
        arguments.get("strategy", "auto"),
        several=_several(arguments),
        unused_parameters=unused_parameters,
    )
    arguments["plugins"] = _plugins()
    return arguments


def launched() -> dict[str, int]:
    """Devices per node and nodes, as torchrun or srun started them; empty if neither did."""
    if TorchElasticEnvironment.detect():
        local, world = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
        return {"devices": local, "num_nodes": world // local}
    if SLURMEnvironment.detect():
        nodes = int(os.environ.get("SLURM_NNODES", 1))
        return {"devices": int(os.environ["SLURM_NTASKS"]) // nodes, "num_nodes": nodes}
    return {}


def _processes(arguments: Mapping[str, Any]) -> dict[str, int]:
    found = launched()
    for key, number in found.items():
        if (asked := arguments.get(key, 1)) not in (1, "auto", -1, number):
            rank_zero_info(f"trainer.{key} is {number}, as launched, not {asked}")
    return found


def _check_cores(arguments: Mapping[str, Any]) -> None:
    """Lightning starts as many processes on a CPU as it is told, and the machine drowns."""
    devices, cores = arguments.get("devices", 1), max(os.cpu_count() or 1, 2)  # two: to try it out
    on_cpu = arguments.get("accelerator", "auto") == "cpu" or not torch.cuda.is_available()
    if on_cpu and isinstance(devices, int) and devices > cores and not launched():
        raise ValueError(
            f"trainer.devices is {devices}, without a GPU at most {cores}: a process for each core"
        )


def _several(arguments: Mapping[str, Any]) -> bool:
    return arguments.get("devices", 1) not in (1, "1") or arguments.get("num_nodes", 1) != 1


def _strategy(name: Any, *, several: bool, unused_parameters: bool) -> Any:
    if name in ("fsdp2", "fsdp2_sharded"):
        return FSDP2Strategy(shards=name == "fsdp2_sharded")
    if several and name in ("auto", "ddp"):
        return DataParallel(find_unused_parameters=unused_parameters)
    return name


def _plugins() -> list[Any]:
    """Under SLURM the batch script asks for the requeue: one place that knows about signals.

    Lightning's own way saves under a name of its own and ignores SIGTERM.
    """
    return [SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() else []


def meet_again(device: torch.device) -> None:
    """After torchrun has started the ranks again, meet where the attempt before left no traces.

    torchrun keeps one store over all attempts, and torch 2.14 no longer tells them apart in it: the
    ranks would wait for addresses of dead processes. Lightning takes the group as it finds it.
    """
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    if attempt == "0" or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return
    world = int(os.environ["WORLD_SIZE"])
    store = dist.TCPStore(
        os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), world, is_master=False
    )
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        store=dist.PrefixStore(f"visionlab/attempt_{attempt}", store),
        rank=int(os.environ["RANK"]),
        world_size=world,
        device_id=device if device.type == "cuda" else None,
    )


def check_same_start(step: int) -> None:
    """All ranks start at the same step.

    Raises:
        RuntimeError: they do not, as when the run folder lies on a disk of one node alone.
    """
    rank, world = rank_and_world()
    if world == 1:
        return
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    steps = [torch.zeros((), dtype=torch.int64, device=device) for _ in range(world)]
    dist.all_gather(steps, torch.tensor(step, dtype=torch.int64, device=device))
    found = sorted({int(s) for s in steps})
    if len(found) > 1:
        raise RuntimeError(
            f"rank {rank} starts at step {step}, others at {found}: every rank must see the same "
            "run folder; put output=... on a file system that all nodes share"
        )


def part() -> None:
    """Training is over: the ranks wait for each other once, then each stands alone.

    What follows (evaluations on rank 0) reads whole data sets and needs no other rank.
    """
    if dist.is_available() and dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()
