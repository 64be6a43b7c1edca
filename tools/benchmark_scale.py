"""Two processes against one: samples per second, and the loss curve for the same global batch.

python tools/benchmark.py scale                        the quickstart on two cores, about a minute
python tools/benchmark.py scale --ranks 4 --repeats 9  on more cores
python tools/benchmark.py scale --config CONFIG trainer.strategy=fsdp2

One thread a process (gloo on a CPU). Speed: the config's batch size on each rank, so that only
trainer.devices changes; steady steps of the real run (logging, checkpoints), arms in turn. Curve:
the batch size divided by the ranks, masks or noise by sample.
"""

import argparse
import multiprocessing as mp
import os
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
_WARM = 10  # steps that are not timed: first allocations, DDP's buckets


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, publish."""
    os.environ["OMP_NUM_THREADS"] = "1"
    args = parser().parse_args(arguments)
    speed = measure_speed(args)
    difference = curve_difference(args)
    report(args, speed, difference)
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--config", type=Path, default=ROOT / "configs" / "quickstart.yaml")
    p.add_argument("--ranks", type=int, default=2)
    p.add_argument("--steps", type=int, default=100, help="timed steps of a repeat (%(default)s)")
    p.add_argument("--repeats", type=int, default=5)
    p.add_argument("--curve-steps", type=int, default=50, help="(%(default)s)")
    p.add_argument("overrides", nargs="*", metavar="key=value", help="of the config")
    return p


def measure_speed(args: argparse.Namespace) -> dict[str, list[float]]:
    """Samples per second of each repeat, by arm: one process, several, several that never meet.

    The last is what this machine could give if exchanging gradients cost nothing.
    """
    arms = {"one": 1, "several": args.ranks, "apart": args.ranks}
    found: dict[str, list[float]] = {arm: [] for arm in arms}
    for _ in range(args.repeats):
        for arm, ranks in arms.items():
            config = run_config(args, 1 if arm == "apart" else ranks, _WARM + args.steps)
            times, batch, _ = together(train, ranks, config, apart=arm == "apart")
            rate = ranks * batch * (len(times) - 1 - _WARM) / (times[-1] - times[_WARM])
            found[arm].append(rate)
    return found


def curve_difference(args: argparse.Namespace) -> float:
    """Largest difference of the losses of one process and of several, same global batch."""
    curves = []
    for ranks in (1, args.ranks):
        config = run_config(args, ranks, args.curve_steps)
        config["data"]["batch_size"] //= ranks
        for key in ("mask_key", "noise_key"):
            if key == KEYS.get(config["task"]["name"]):
                config["task"][key] = "sample"
        config["trainer"]["log_every_n_steps"] = 1
        curves.append(together(train, ranks, config)[2])
    if len(curves[0]) != args.curve_steps or len(curves[1]) != args.curve_steps:
        raise RuntimeError(f"curves of {[len(c) for c in curves]} steps, not {args.curve_steps}")
    return max(abs(a - b) for a, b in zip(*curves))


KEYS = {"masked_pretraining": "mask_key", "proximal_matching": "noise_key"}


def run_config(args: argparse.Namespace, ranks: int, steps: int) -> dict[str, Any]:
    """The config for so many ranks and steps, on the CPU."""
    from visionlab import config as configs

    config = configs.read(args.config, args.overrides)
    config["trainer"] |= {
        "accelerator": "cpu",
        "devices": ranks,
        "max_epochs": -1,
        "max_steps": steps,
        "enable_progress_bar": False,
    }
    configs.check(config)
    return config


def together(function: Callable[..., Any], ranks: int, *arguments: Any, apart: bool = False) -> Any:
    """What ``function`` returns on rank 0 of ``ranks`` processes, forked with torch imported.

    Args:
        function: called in each.
        ranks: number of processes.
        *arguments: of the function.
        apart: each process is told that it is alone.
    """
    import visionlab.tasks.training  # noqa: F401  (once, before the fork)

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    fork = mp.get_context("fork")
    mine, theirs = fork.Pipe()
    processes = [
        fork.Process(
            target=_rank, args=(theirs, rank, ranks, None if apart else port, function, arguments)
        )
        for rank in range(ranks)
    ]
    for process in processes:
        process.start()
    theirs.close()
    try:
        return mine.recv()
    except EOFError:
        raise RuntimeError("a process failed; its message is above") from None
    finally:
        for process in processes:
            process.join()


def _rank(
    pipe: Any, rank: int, ranks: int, port: int | None, function: Callable[..., Any], arguments: Any
) -> None:
    import torch

    torch.set_num_threads(1)
    if port is not None:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": "0"}
    result = function(*arguments)
    if rank == 0:
        pipe.send(result)


def train(config: dict[str, Any]) -> tuple[list[float], int, list[float]]:
    """Times after each step (s), batch size of a rank, and the logged losses of a run."""
    import lightning as L

    from visionlab import config as configs
    from visionlab.data.randomness import seed_all
    from visionlab.tasks import training
    from visionlab.tasks.curves import read_curves
    from visionlab.tasks.stopping import StopSignals

    class Clock(L.Callback):
        times: list[float] = []

        def on_train_batch_end(self, *_: Any) -> None:
            self.times.append(time.perf_counter())

    training.quieten_lightning()
    training.keep_freed_memory()
    seed_all(int(config["seed"]))
    data, task = (configs.build(config[k], key=k) for k in ("data", "task"))
    data.seed = task.seed = int(config["seed"])
    with tempfile.TemporaryDirectory() as scratch:
        trainer = training.build_trainer(
            config,
            Path(scratch),
            StopSignals(),
            validate=False,
            unused_parameters=task.unused_parameters,
        )
        clock = Clock()
        trainer.callbacks.append(clock)  # type: ignore[attr-defined]
        trainer.fit(task, datamodule=data)
        curves = Path(scratch) / "metrics.csv"
        losses = read_curves(curves).get("train/loss", []) if curves.is_file() else []
    return clock.times, int(config["data"]["batch_size"]), [v for _, v in losses]


def report(args: argparse.Namespace, speed: dict[str, list[float]], difference: float) -> None:
    """Print the table and hand it to whoever listens."""
    from visionlab.figures import Column, Figure, at_least, at_most, measured, publish

    one = statistics.median(speed["one"])
    names = {
        "one": "1 process, one thread",
        "several": f"{args.ranks} processes, one thread each",
        "apart": f"{args.ranks} runs that never meet (the machine's limit)",
    }
    rows = []
    for arm, rates in speed.items():
        rate = statistics.median(rates)
        each = ", ".join(f"{b / a:.2f}" for a, b in zip(speed["one"], rates))
        values: dict[str, Any] = {"rate": rate, "ratio": rate / one, "each": each}
        claims = [at_least("ratio", 1.7)] if arm == "several" and args.ranks == 2 else []
        spread = {"rate": [min(rates), max(rates)]}
        rows.append(Figure(names[arm], values, spread=spread, claims=claims))
        print(f"{names[arm]:46s} {rate:8.1f} samples/s ({min(rates):.1f} .. {max(rates):.1f})  "
              f"{rate / one:.2f}x")  # fmt: skip
    print(f"ratio of each repeat: {rows[1].values['each']}; load {os.getloadavg()[0]:.1f}")
    print(f"largest difference of the loss over {args.curve_steps} steps: {difference:.1e}")
    publish(
        measured(
            "scale.speed",
            f"Data parallel training of {args.config.stem}, samples per second",
            head="processes",
            columns=[
                Column("samples/s", "{rate:.0f}"),
                Column("against one", "{ratio:.2f}x"),
                Column("in each repeat", "{each}"),
            ],
            figures=rows,
            units={"rate": "samples/s", "ratio": "of medians"},
            note=f"Median of {args.repeats} repeats of {args.steps} steps, arms in turn; the "
            "config's batch size on each rank.",
        )
    )
    publish(
        measured(
            "scale.curve",
            f"Loss of {args.ranks} processes against one, same global batch",
            head="run",
            columns=[Column("largest difference", "{difference:.1e}")],
            figures=[
                Figure(
                    f"{args.config.stem}, {args.curve_steps} steps",
                    {"difference": difference},
                    claims=[at_most("difference", 1e-4)],
                )
            ],
            units={"difference": "of the loss"},
        )
    )


if __name__ == "__main__":
    sys.exit(main())
