"""Several processes that train together over gloo, as a launcher would start them.

They are forked from one server that has imported torch and Lightning, which takes seconds.
"""

import multiprocessing as mp
import os
import socket
import traceback
import warnings
from collections.abc import Callable
from multiprocessing.connection import wait
from typing import Any

_SERVER = mp.get_context("forkserver")
_SERVER.set_forkserver_preload(["visionlab.tasks.training", "visionlab.tasks.multitask", "timm"])


def on_ranks(
    function: Callable[..., Any], *arguments: Any, ranks: int = 2, seconds: int = 200
) -> list[Any]:
    """What ``function(rank, *arguments)`` returns in each of ``ranks`` processes.

    Raises:
        AssertionError: one of them failed; its traceback.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pipes, processes = [], []
    for rank in range(ranks):
        mine, theirs = _SERVER.Pipe()
        process = _SERVER.Process(
            target=_run, args=(theirs, rank, ranks, port, function, arguments), daemon=True
        )
        process.start()
        theirs.close()
        pipes.append(mine)
        processes.append(process)
    try:
        return _results(pipes, seconds)
    finally:
        for process in processes:
            process.join(5)
            process.kill()


def _results(pipes: list[Any], seconds: int) -> list[Any]:
    """In the order of the ranks; the first failure ends the waiting."""
    found: dict[int, Any] = {}
    while len(found) < len(pipes):
        ready = wait([p for i, p in enumerate(pipes) if i not in found], seconds)
        assert ready, f"ranks {sorted(set(range(len(pipes))) - set(found))}: silent for {seconds} s"
        for pipe in ready:
            rank = pipes.index(pipe)
            error, found[rank] = pipe.recv()
            assert not error, f"rank {rank}: {error}"
    return [found[rank] for rank in range(len(pipes))]


def _run(
    pipe: Any, rank: int, ranks: int, port: int, function: Callable[..., Any], arguments: Any
) -> None:
    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "NODE_RANK": "0"}
    os.environ |= {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    try:
        pipe.send(("", function(rank, *arguments)))
    except BaseException:
        pipe.send((traceback.format_exc(), None))
