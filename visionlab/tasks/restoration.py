"""Restore degraded images with a learned prox and with baselines: one table, panels and curves.

Behind ``tools/evaluate.py restore CHECKPOINT``. Parameters, the iteration to stop at included, are
chosen on validation pictures; test pictures are restored once.
"""

import csv
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visionlab.tasks.trust import add_trust_code

if TYPE_CHECKING:
    from torch import Tensor

    from visionlab.proximal.network import ProximalMap
    from visionlab.tasks.restoration_problems import Method, Problem

_CHUNK = 12  # images restored at a time


@dataclass(frozen=True)
class Comparison:
    """All methods on one problem.

    Attributes:
        rows: one per method, for a table.
        images: method -> restored test images.
        methods: with the settings they chose.
    """

    problem: "Problem"
    rows: list[dict[str, Any]]
    images: dict[str, "Tensor"]
    methods: list["Method"]


def compare(
    problem: "Problem",
    net: "ProximalMap",
    *,
    validation: "Tensor",
    test: "Tensor",
    levels: Sequence[float] = (),
    iterations: int = 100,
    solvers: Sequence[str] = ("guaranteed", "admm", "mirror"),
    seed: int = 0,
) -> Comparison:
    """Choose each method's setting on ``validation`` and score it on ``test``.

    Args:
        net: the prox.
        validation: clean images ``(N, C, H, W)`` in [0, 1].
        test: likewise, of the same size and from other pictures.
        levels: noise levels to try of a network trained over a range.
        iterations: most iterations to choose from.
        solvers: keys of `restoration_problems.SOLVERS`.
        seed: of the noise.
    """
    from visionlab.tasks.restoration_problems import classical_methods, learned_methods

    y_validation = problem.measure(validation, seed=seed)
    y_test = problem.measure(test, seed=seed + 1)
    rows, images = [], {}

    def enter(method: "Method") -> None:
        chosen = method.choose(y_validation, validation, problem)
        restored, theorem = _apply(method, y_test, problem)
        images[method.name] = restored
        rows.append(_row(problem, method, restored, test, validation=chosen, theorem=theorem))

    baselines = list(classical_methods(problem, validation))
    for method in baselines:
        enter(method)
    problem = _with_start(problem, baselines)
    learned = list(
        learned_methods(problem, net, levels=levels, iterations=iterations, solvers=solvers)
    )
    for method in learned:
        enter(method)
    methods = [*baselines, *learned]
    return Comparison(problem, rows, images, methods)


def _with_start(problem: "Problem", baselines: Sequence["Method"]) -> "Problem":
    """Compressed sensing starts from the TV image, at the weight chosen for TV."""
    from visionlab.proximal.physics import CompressedSensing
    from visionlab.tasks.restoration_problems import StartFromTV

    if not isinstance(problem.physics, CompressedSensing):
        return problem
    tv = next(m for m in baselines if m.name == "TV")
    return replace(problem, start=StartFromTV(problem.physics, tv.chosen["weight"]))


def _apply(method: "Method", y: "Tensor", problem: "Problem") -> tuple["Tensor", bool | None]:
    """Restored images, and whether a theorem covers the run (None for a baseline)."""
    import torch

    from visionlab.proximal.iteration import Restoration
    from visionlab.tasks.restoration_problems import images_of

    theorem: bool | None = None
    parts = []
    for part in y.split(_CHUNK):
        result = method.run(part, problem, method.chosen, None)
        if isinstance(result, Restoration):
            theorem = result.guaranteed
        parts.append(images_of(result))
    return torch.cat(parts), theorem


def _row(
    problem: "Problem",
    method: "Method",
    restored: "Tensor",
    clean: "Tensor",
    *,
    validation: float,
    theorem: bool | None,
) -> dict[str, Any]:
    import torch
    from torchmetrics.functional.image import structural_similarity_index_measure as ssim

    from visionlab.tasks.restoration_problems import psnr

    similarity = float(torch.as_tensor(ssim(restored, clean, data_range=1.0)))
    chosen = " ".join(f"{k}={v:.3g}" for k, v in method.chosen.items())
    return {
        "problem": problem.name,
        "method": method.name,
        "PSNR": round(float(psnr(restored, clean).mean()), 2),
        "SSIM": round(similarity, 3),
        "validation PSNR": round(validation, 2),
        "theorem": {True: "yes", False: "no", None: ""}[theorem],
        "chosen on validation": chosen + (" (edge of grid)" if method.at_edge() else ""),
    }


def convergence(
    comparison: Comparison, test: "Tensor", *, iterations: int, seed: int = 0
) -> dict[str, dict[str, list[float]]]:
    """Each solver at its chosen weight for many iterations: what early stopping is worth.

    Returns:
        method -> mean traces ``psnr``, ``objective`` (from its last value), ``merit_rise`` (largest
        relative rise over samples), ``residual``, and the PSNR of the first image, ``start``.
    """
    from visionlab.proximal.iteration import Restoration
    from visionlab.tasks.restoration_problems import Watch, psnr

    problem, traces = comparison.problem, {}
    y = problem.measure(test, seed=seed + 1)
    first = problem.physics.initial(y) if problem.start is None else problem.start(y)
    start = [float(psnr(first, test).mean())]
    for method in comparison.methods:
        if "iterations" not in method.chosen:
            continue
        watch = Watch(test)
        result = method.run(y, problem, {**method.chosen, "iterations": iterations}, watch)
        assert isinstance(result, Restoration)
        rise = result.merit.diff(dim=0) / result.merit.abs().amax(0)
        traces[method.name] = {
            "start": start,
            "psnr": watch.curve,
            "objective": (result.objective - result.objective[-1]).mean(1).tolist(),
            "merit_rise": rise.amax(1).tolist(),
            "residual": result.residuals.mean(1).tolist(),
        }
    return traces


def convergence_rows(
    problem: str, traces: dict[str, dict[str, list[float]]]
) -> list[dict[str, Any]]:
    """One row per solver: start, best and last iterate, largest rise of what should fall."""
    rows = []
    for name, trace in traces.items():
        best = max(trace["psnr"])
        rows.append(
            {
                "problem": problem,
                "method": name,
                "start PSNR": round(trace["start"][0], 2),
                "best PSNR": round(best, 2),
                "at": trace["psnr"].index(best) + 1,
                "last PSNR": round(trace["psnr"][-1], 2),
                "iterations": len(trace["psnr"]),
                "largest rise": max(trace["merit_rise"]),
                "last residual": trace["residual"][-1],
            }
        )
    return rows


def add_arguments(parser: ArgumentParser) -> None:
    """Arguments of ``tools/evaluate.py restore``."""
    add_trust_code(parser)
    parser.add_argument("checkpoint", type=Path, help="checkpoint of a learned proximal network")
    parser.add_argument("--problems", nargs="+", default=["blur1", "blur2"], metavar="NAME",
                        help="denoise, blur1, blur2, blur2_valid, tomography, cs4, cs16, "
                             "inpainting, sr2 (default: blur1 blur2)")  # fmt: skip
    parser.add_argument("--validation", default="scikit-learn:0:1", metavar="SOURCE",
                        help="pictures that choose the parameters: a folder, an .npz archive, "
                             "scikit-image or scikit-learn; SOURCE:2:5 takes pictures 2 to 4 "
                             "(default: one photograph of scikit-learn)")  # fmt: skip
    parser.add_argument("--test", default="scikit-learn:1:2", metavar="SOURCE",
                        help="pictures that are scored (default: scikit-learn's other "
                             "photograph)")  # fmt: skip
    parser.add_argument("--size", type=int, default=128, help="side of the crops (default 128)")
    parser.add_argument("--crops", type=int, nargs=2, default=[6, 6], metavar="N",
                        help="crops per validation and per test picture (default 6 6)")  # fmt: skip
    parser.add_argument("--solvers", nargs="+", default=["guaranteed", "admm", "mirror"],
                        help="admm, guaranteed, hqs, mirror, pgd")  # fmt: skip
    parser.add_argument("--levels", nargs="+", type=float, default=[],
                        help="noise levels to try of a network trained over a range")  # fmt: skip
    parser.add_argument("--iterations", type=int, default=100,
                        help="most iterations to choose from (default 100)")  # fmt: skip
    parser.add_argument("--long", type=int, default=0, metavar="N",
                        help="also run N iterations and draw the PSNR along them")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of crops and noise (default 0)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default cpu)")
    parser.add_argument("--output", type=Path,
                        help="folder (default: restore, beside the checkpoint)")  # fmt: skip


def run(args: Namespace) -> None:
    """Print the table, write it with its pictures."""
    from visionlab.registry import suggest
    from visionlab.tasks.restoration_problems import SOLVERS, make_problem
    from visionlab.tasks.tables import format_table

    net = load_prox(args.checkpoint, trust_code=args.trust_code).to(args.device)
    if net.backbone.dim != 2:  # type: ignore[union-attr]
        raise ValueError(f"{args.checkpoint} holds a network of vectors or signals; 'restore' "
                         "needs one of images, 'certify' and 'prior' take both")  # fmt: skip
    if unknown := [s for s in args.solvers if s not in SOLVERS]:
        raise ValueError(f"no solver '{unknown[0]}'. {suggest(unknown[0], SOLVERS)}")
    validation, test = (t.to(args.device) for t in _pictures(args, net))
    output = args.output or args.checkpoint.parent / "restore"
    output.mkdir(parents=True, exist_ok=True)
    levels = args.levels or default_levels(net)
    rows, long_rows = [], []
    for name in args.problems:
        problem = make_problem(name, test.shape[1:])
        problem.physics.to(args.device)
        comparison = compare(problem, net, validation=validation, test=test, levels=levels,
                             iterations=args.iterations, solvers=args.solvers,
                             seed=args.seed)  # fmt: skip
        rows += comparison.rows
        print(format_table(comparison.rows, problem.title), flush=True)
        _draw(comparison, test, output, args)
        if args.long and name != "denoise":
            long_rows += _long_run(comparison, test, output, args)
    _write_csv(output / "restoration.csv", rows)
    if long_rows:
        _write_csv(output / "convergence.csv", long_rows)
        print(format_table(long_rows, f"Along {args.long} iterations"))
    print(f"written to {output}")


def load_prox(path: Path, *, trust_code: bool = False) -> "ProximalMap":
    """The proximal network of a checkpoint.

    Raises:
        ValueError: the checkpoint holds another kind of model.
    """
    from visionlab.checkpoint import load
    from visionlab.proximal.network import ProximalMap

    model = load(path, trust_code=trust_code)
    if not isinstance(model, ProximalMap):
        raise ValueError(
            f"{path} holds a {type(model).__name__}; expected a learned proximal network, as "
            "configs/proximal/*.yaml train"
        )
    return model.eval().requires_grad_(False)


def default_levels(net: "ProximalMap") -> list[float]:
    """Four levels spread over the upper part of the range trained on, none for a single level."""
    if net.noise_range is None:
        return []
    low, high = net.noise_range
    return [high * f for f in (1.0, 0.67, 0.45, 0.3) if high * f >= low]


def channels_of(net: "ProximalMap") -> int:
    """Image channels that the network takes."""
    return int(net.backbone.image_channels)  # type: ignore[union-attr,arg-type]


def _pictures(args: Namespace, net: "ProximalMap") -> tuple["Tensor", "Tensor"]:
    from visionlab.data.pictures import cut_crops, read_pictures

    if args.validation == args.test:
        raise ValueError(
            f"validation and test are both '{args.test}': parameters must not be chosen on the "
            "pictures that are scored"
        )
    channels = channels_of(net)
    validation, test = (
        cut_crops(
            read_pictures(source, channels=channels), args.size, per_picture=count, seed=args.seed
        )
        for source, count in zip((args.validation, args.test), args.crops, strict=True)
    )
    print(f"{len(validation)} validation and {len(test)} test crops of {args.size} x {args.size}")
    return validation, test


def _draw(comparison: Comparison, test: "Tensor", output: Path, args: Namespace) -> None:
    from visionlab.plots.restoration import plot_panel
    from visionlab.tasks.restoration_problems import psnr

    count = min(3, len(test))
    spread = [round(i * (len(test) - 1) / max(1, count - 1)) for i in range(count)]
    shown = {
        name: (images[spread].cpu(), psnr(images[spread], test[spread]).tolist())
        for name, images in comparison.images.items()
    }
    plot_panel(test[spread].cpu(), shown, output / f"{comparison.problem.name}.png",
               title=comparison.problem.title)  # fmt: skip


def _long_run(
    comparison: Comparison, test: "Tensor", output: Path, args: Namespace
) -> list[dict[str, Any]]:
    from visionlab.plots.restoration import plot_convergence

    few = test[:4]
    traces = convergence(comparison, few, iterations=args.long, seed=args.seed)
    name = comparison.problem.name
    plot_convergence(traces, output / f"{name}_convergence.png", title=comparison.problem.title)
    return convergence_rows(name, traces)


def _write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
