"""Time of the MoE layer against a dense MLP of equal FLOPs, forward and backward.

    OMP_NUM_THREADS=1 python tools/benchmark_moe.py                        # CPU, ViT-S sizes
    python tools/benchmark_moe.py --device cuda --preset h100              # GPU, bfloat16

Prints medians over interleaved repeats, the ratio to the dense MLP (1 = as fast as dense, smaller
is better), and the same for Mod-Squad's layer rule, written here from its description: sort by
expert, one matmul per expert into preallocated outputs, gates from the full softmax, index_add.
On CUDA also the inverse (dense / this), the same with both captured in a CUDA graph, the peak
memory of a step, and ScatterMoE where it is installed (pip install scattermoe).
"""

import argparse
import importlib.util
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visionlab.figures import Column, Figure, FigureTable, at_least, at_most, measured, publish
from visionlab.moe import MoELayer

CPU_SHAPES = [(1576, 384, 16, 4, h) for h in (192, 384, 768, 1536)]
H100_SHAPES = [(50432, 768, 16, 2, 1536), (50432, 384, 16, 4, 384), (16640, 384, 16, 2, 768)]
CPU_LIMITS = {192: 1.5, 384: 1.25, 768: 1.15, 1536: 1.15}  # claimed: time to dense at most
GPU_LIMITS = dict(zip(H100_SHAPES, (0.75, 0.58, 0.60)))  # claimed: dense / MoE at least


class _ParallelLinear(torch.autograd.Function):
    """rows (M, I) in groups of given sizes times weight (E, I, O)."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, sizes: list[int], weight: Tensor) -> Tensor:
        out = rows.new_empty(rows.shape[0], weight.shape[2])
        for r, o, w in zip(rows.split(sizes), out.split(sizes), weight, strict=True):
            torch.mm(r, w, out=o)
        ctx.save_for_backward(rows, weight)
        ctx.sizes = sizes
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, Tensor]:
        rows, weight = ctx.saved_tensors
        d_rows, d_weight = torch.empty_like(rows), torch.empty_like(weight)
        groups = zip(rows.split(ctx.sizes), grad.split(ctx.sizes), d_rows.split(ctx.sizes))
        for i, (r, g, d) in enumerate(groups):
            torch.mm(g, weight[i].t(), out=d)
            torch.mm(r.t(), g, out=d_weight[i])
        return d_rows, None, d_weight


class ModSquadRule(nn.Module):
    """Mod-Squad's MLP layer (arXiv 2212.08066) as its sheet describes it; a baseline only."""

    def __init__(self, dim: int, hidden: int, experts: int, top_k: int) -> None:
        super().__init__()
        self.top_k = top_k
        self.router = nn.Linear(dim, experts, bias=False)
        self.w1 = nn.Parameter(torch.randn(experts, dim, hidden) * 0.02)
        self.w2 = nn.Parameter(torch.randn(experts, hidden, dim) * 0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (N, D) -> (N, D)."""
        gates, chosen = (self.router(x).softmax(-1) + 1e-4).topk(self.top_k)
        order = chosen.flatten().sort(stable=True).indices
        token = order.div(self.top_k, rounding_mode="trunc")
        sizes = chosen.flatten().bincount(minlength=self.w1.shape[0]).tolist()
        h = _ParallelLinear.apply(x[token], sizes, self.w1)
        y = _ParallelLinear.apply(F.gelu(h), sizes, self.w2) * gates.flatten()[order, None]
        return torch.zeros_like(x).index_add(0, token, y)


class ScatterMoERule(nn.Module):
    """ScatterMoE's MLP (arXiv 2403.08245) behind a linear router; a baseline only."""

    def __init__(self, dim: int, hidden: int, experts: int, top_k: int) -> None:
        from scattermoe.mlp import MLP

        super().__init__()
        self.top_k = top_k
        self.router = nn.Linear(dim, experts, bias=False)
        self.mlp = MLP(dim, hidden, experts, top_k, activation=nn.GELU())

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (N, D) -> (N, D)."""
        logits, chosen = self.router(x).topk(self.top_k)
        return self.mlp(x, logits.softmax(-1), chosen)


def dense_mlp(dim: int, hidden: int) -> nn.Module:
    """The dense MLP of a transformer block."""
    return nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))


def step_of(module: nn.Module, x: Tensor, grad: Tensor) -> Callable[[], None]:
    """One forward and backward pass; gradients are set anew, not accumulated."""

    def step() -> None:
        out = module(x)
        (out if isinstance(out, Tensor) else out.output).backward(grad)
        x.grad = None
        for p in module.parameters():
            p.grad = None

    return step


def timed(step: Callable[[], None], device: str) -> float:
    """Milliseconds: process time on a CPU, wall time between synchronisations on CUDA."""
    if device == "cpu":
        start = time.process_time()
        step()
        return (time.process_time() - start) * 1e3
    torch.cuda.synchronize()
    begin = time.perf_counter()
    step()
    torch.cuda.synchronize()
    return (time.perf_counter() - begin) * 1e3


@dataclass
class Times:
    """Repeats of one variant in ms, with its peak memory where the device tells it."""

    eager: list[float] = field(default_factory=list)
    graph: list[float] = field(default_factory=list)
    peak_mib: float = float("nan")


def variants(shape: tuple[int, int, int, int, int], backends: list[str]) -> dict[str, nn.Module]:
    """Dense MLP, Mod-Squad's rule, ScatterMoE if installed, and the layer on each backend."""
    _, d, e, k, h = shape
    modules: dict[str, nn.Module] = {"dense": dense_mlp(d, k * h)}
    modules["Mod-Squad rule"] = ModSquadRule(d, h, e, k)
    if importlib.util.find_spec("scattermoe") is not None:
        modules["ScatterMoE"] = ScatterMoERule(d, h, e, k)
    return modules | {b: MoELayer(d, h, e, k, backend=b) for b in backends}


def measure(
    shape: tuple[int, int, int, int, int], device: str, backends: list[str], repeats: int
) -> dict[str, Times]:
    """Times of every variant, interleaved so that a busy machine hits all alike."""
    n, d = shape[:2]
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    torch.manual_seed(0)
    x = torch.randn(n, d, device=device, dtype=dtype).requires_grad_()
    grad = torch.randn(n, d, device=device, dtype=dtype)
    modules = {m: v.to(device, dtype) for m, v in variants(shape, backends).items()}
    steps = {m: step_of(module, x, grad) for m, module in modules.items()}
    times = {m: Times() for m in steps}
    runs = [(steps[m], times[m].eager) for m in steps]
    if device == "cuda":
        for m, step in steps.items():
            times[m].peak_mib = peak_memory(step)
        captured = [m for m in steps if m == "dense" or (m in backends and m != "loop")]
        runs += [(captured_step(steps[m]), times[m].graph) for m in captured]
    for i in range(repeats + 2):
        for step, kept in runs:
            t = timed(step, device)
            if i >= 2:
                kept.append(t)
    return times


def captured_step(step: Callable[[], None]) -> Callable[[], None]:
    """The step as a CUDA graph: no launch costs, and an error if it waits for the host."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # compiles kernels and fills caches outside the graph
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def peak_memory(step: Callable[[], None]) -> float:
    """MiB that a step needs beyond what was allocated before it (the weights and the input)."""
    step()  # kernels that tune themselves do it here
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    step()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def rows(times: dict[str, Times], *, cuda: bool) -> list[list[str]]:
    """Cells of each variant: ms and ratios of medians; on CUDA also graphs and memory."""
    medians = {m: statistics.median(t.eager) for m, t in times.items()}
    graphs = {m: statistics.median(t.graph) for m, t in times.items() if t.graph}
    dense, rule = medians["dense"], medians["Mod-Squad rule"]
    table = []
    for m, t in medians.items():
        cells = [m, f"{t:.2f}", f"{t / dense:.2f}", f"{t / rule:.2f}"]
        if cuda:
            graph = graphs.get(m)
            cells += [f"{dense / t:.2f}", f"{graph:.2f}" if graph else "-"]
            cells += [f"{graphs['dense'] / graph:.2f}" if graph else "-"]
            cells += [f"{times[m].peak_mib:.0f}"]
        table.append(cells)
    return table


def main() -> None:
    """Print one markdown row per shape and variant."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--preset", default="cpu", choices=["cpu", "h100"])
    parser.add_argument("--widths", type=int, nargs="*", help="only these expert widths")
    parser.add_argument(
        "--backends", nargs="*", help="default: auto; on CUDA fused, triton, grouped_mm"
    )
    parser.add_argument("--repeats", type=int, default=15)
    args = parser.parse_args()
    cuda = args.device == "cuda"
    backends = args.backends or (["fused", "triton", "grouped_mm"] if cuda else ["auto"])
    name = torch.cuda.get_device_name() if cuda else platform.processor() or platform.machine()
    print(f"{name}, torch {torch.__version__}, threads {torch.get_num_threads()}")
    heads = ["tokens", "dim", "experts", "k", "width", "variant", "ms"]
    heads += ["/ dense", "/ Mod-Squad rule"]
    if cuda:
        heads += ["dense / this", "graph ms", "dense graph / this graph", "peak MiB"]
    print(f"| {' | '.join(heads)} |\n|{'-|' * len(heads)}")
    figures = []
    for shape in CPU_SHAPES if args.preset == "cpu" else H100_SHAPES:
        if args.widths and shape[-1] not in args.widths:
            continue
        times = measure(shape, args.device, backends, args.repeats)
        for cells in rows(times, cuda=cuda):
            print(f"| {' | '.join(map(str, shape))} | {' | '.join(cells)} |", flush=True)
        figures.append(figure_of(shape, times, backends[0]))
    publish(table_of(figures, args.repeats, cuda=cuda))


def figure_of(shape: tuple[int, int, int, int, int], times: dict[str, Times], ours: str) -> Figure:
    """One shape as a record; with graphs the ratios are dense / MoE, where higher is better."""
    own, graph = times[ours].eager, times[ours].graph
    ms = {m: statistics.median(t.eager) for m, t in times.items()}
    rival = ms["Mod-Squad rule"]
    values = {"ms": ms[ours], "ratio": ms[ours] / ms["dense"], "rival_ratio": rival / ms["dense"]}
    values["to_rival"] = ms[ours] / rival
    claims = [at_most("to_rival", 1.05)]
    if graph:
        values["speed"] = ms["dense"] / ms[ours]
        values["graph_speed"] = statistics.median(times["dense"].graph) / statistics.median(graph)
        values["mib"] = times[ours].peak_mib
        limit = "graph_speed" if shape == H100_SHAPES[2] else "speed"
        claims += [at_least(limit, GPU_LIMITS[shape])] if shape in GPU_LIMITS else []
    elif shape[-1] in CPU_LIMITS:
        claims.append(at_most("ratio", CPU_LIMITS[shape[-1]]))
    if "ScatterMoE" in ms:
        values["scatter_speed"] = ms["dense"] / ms["ScatterMoE"]
        values["scatter_mib"] = times["ScatterMoE"].peak_mib
        claims.append(at_most("mib", times["ScatterMoE"].peak_mib))
    spread = {"ms": [min(own), max(own)]}
    n, d, e, k, h = shape
    name = f"{n:,} x {d}, {e} experts, k {k}, width {h}"
    return Figure(name, values, spread=spread, claims=claims)


def table_of(figures: list[Figure], repeats: int, *, cuda: bool) -> FigureTable:
    """The records of all shapes."""
    cpu = [
        Column("MoE layer / dense", "{ratio:.2f}"),
        Column("Mod-Squad's rule / dense", "{rival_ratio:.2f}"),
        Column("MoE layer / Mod-Squad's rule", "{to_rival:.2f}"),
    ]
    gpu = [
        Column("dense / MoE", "{speed:.2f}"),
        Column("graph against graph", "{graph_speed:.2f}"),
        Column("dense / ScatterMoE", "{scatter_speed:.2f}"),
        Column("peak MiB, ours / ScatterMoE", "{mib:.0f} / {scatter_mib:.0f}"),
    ]
    return measured(
        "moe.layer_gpu" if cuda else "moe.layer_cpu",
        "MoE layer, forward and backward, beside a dense MLP of equal FLOPs",
        head="tokens x dim, experts",
        columns=[Column("ms", "{ms:.1f}"), *(gpu if cuda else cpu)],
        figures=figures,
        note=f"Medians of {repeats} interleaved repeats, router included; time to dense: 1 = as "
        "fast, smaller is better.",
        chart="speed" if cuda else "ratio",
        units={"ms": "ms", "ratio": "time to dense, smaller is better", "speed": "dense / MoE"},
        device="gpu" if cuda else "cpu",
    )


if __name__ == "__main__":
    main()
