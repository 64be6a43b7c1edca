"""Time of the MoE layer against a dense MLP of equal FLOPs, forward and backward.

    OMP_NUM_THREADS=1 python tools/benchmark_moe.py                        # CPU, ViT-S sizes
    python tools/benchmark_moe.py --device cuda --preset h100              # GPU, bfloat16

Prints medians over interleaved repeats, the ratio to the dense MLP (1 = as fast as dense, smaller
is better), and the same for Mod-Squad's layer rule, written here from its description: sort by
expert, one matmul per expert into preallocated outputs, gates from the full softmax, index_add.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visionlab.moe import MoELayer

CPU_SHAPES = [(1576, 384, 16, 4, h) for h in (192, 384, 768, 1536)]
H100_SHAPES = [(50432, 768, 16, 2, 1536), (50432, 384, 16, 4, 384), (16640, 384, 16, 2, 768)]


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


def measure(
    shape: tuple[int, int, int, int, int], device: str, backends: list[str], repeats: int
) -> dict[str, list[float]]:
    """Times of every variant, interleaved so that a busy machine hits all alike."""
    n, d, e, k, h = shape
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    torch.manual_seed(0)
    modules = {"dense": dense_mlp(d, k * h), "Mod-Squad rule": ModSquadRule(d, h, e, k)}
    modules |= {b: MoELayer(d, h, e, k, backend=b) for b in backends}
    x = torch.randn(n, d, device=device, dtype=dtype).requires_grad_()
    grad = torch.randn(n, d, device=device, dtype=dtype)
    steps = {m: step_of(mod.to(device, dtype), x, grad) for m, mod in modules.items()}
    times: dict[str, list[float]] = {m: [] for m in modules}
    for i in range(repeats + 2):
        for m, step in steps.items():
            t = timed(step, device)
            if i >= 2:
                times[m].append(t)
    return times


def main() -> None:
    """Print one markdown row per shape and variant."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--preset", default="cpu", choices=["cpu", "h100"])
    parser.add_argument("--widths", type=int, nargs="*", help="only these expert widths")
    parser.add_argument("--backends", nargs="*", default=["auto"])
    parser.add_argument("--repeats", type=int, default=15)
    args = parser.parse_args()
    name = platform.processor() or platform.machine()
    if args.device == "cuda":
        name = torch.cuda.get_device_name()
    print(f"{name}, torch {torch.__version__}, threads {torch.get_num_threads()}")
    print("| tokens | dim | experts | k | width | variant | ms | / dense | / Mod-Squad rule |")
    print("|-|-|-|-|-|-|-|-|-|")
    for shape in CPU_SHAPES if args.preset == "cpu" else H100_SHAPES:
        if args.widths and shape[-1] not in args.widths:
            continue
        times = measure(shape, args.device, args.backends, args.repeats)
        medians = {m: statistics.median(t) for m, t in times.items()}
        for m, t in medians.items():
            ratios = f"{t / medians['dense']:.2f} | {t / medians['Mod-Squad rule']:.2f}"
            print(f"| {' | '.join(map(str, shape))} | {m} | {t:.1f} | {ratios} |", flush=True)


if __name__ == "__main__":
    main()
