"""Several processes that train together over gloo, as a launcher would start them."""

import os
import pickle
import traceback
import warnings
from collections.abc import Callable
from multiprocessing.connection import wait
from typing import Any

from tests.forks import nursery


def new_meeting() -> None:
    """To be called before each further process group: a store serves one. See `on_ranks`."""
    port, *rest = os.environ["PORTS"].split()
    os.environ |= {"MASTER_PORT": port, "PORTS": " ".join(rest)}


def open_stores(count: int) -> list[Any]:
    """Stores where the ranks of one process group each meet, at ports that the system gives.

    A port that is looked for, given back and taken later may be someone else's by then.
    """
    from torch.distributed import TCPStore

    return [TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False) for _ in range(count)]


def at_store(port: int) -> dict[str, str]:
    """Environment of ranks that meet at a store of this process, as torchrun's meet at its own."""
    return {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
            "TORCHELASTIC_USE_AGENT_STORE": "True"}  # fmt: skip


def on_ranks(
    function: Callable[..., Any],
    *arguments: Any,
    ranks: int = 2,
    meetings: int = 0,
    seconds: int = 500,
) -> list[Any]:
    """What ``function(rank, *arguments)`` returns in each of ``ranks`` processes.

    It may call `new_meeting` as often as ``meetings`` says; no more, since of forty stores one
    takes torch five seconds to open.

    Raises:
        AssertionError: one of them failed; its traceback.
    """
    stores = open_stores(1 + meetings)
    ports = [store.port for store in stores]
    context = nursery()
    pipes, processes = [], []
    for rank in range(ranks):
        mine, theirs = context.Pipe()
        process = context.Process(
            target=_run, args=(theirs, rank, ranks, ports, function, arguments), daemon=True
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
            error, found[rank] = pickle.loads(pipe.recv_bytes())  # tensors by value
            assert not error, f"rank {rank}: {error}"
    return [found[rank] for rank in range(len(pipes))]


def _run(
    pipe: Any, rank: int, ranks: int, ports: list[int], function: Callable[..., Any], arguments: Any
) -> None:
    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "NODE_RANK": "0"}
    os.environ |= at_store(ports[0])
    os.environ |= {"WORLD_SIZE": str(ranks), "PORTS": " ".join(map(str, ports[1:]))}
    try:
        pipe.send_bytes(pickle.dumps(("", function(rank, *arguments))))
    except BaseException:
        pipe.send_bytes(pickle.dumps((traceback.format_exc(), None)))
