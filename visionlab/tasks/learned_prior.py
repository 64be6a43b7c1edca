"""What has a proximal network learned? Its prior along paths, or beside the true one, as pictures.

``tools/evaluate.py prior CHECKPOINT``, and an evaluation at the end of a training run.
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from visionlab.proximal.curves import Path as PriorPath
from visionlab.proximal.curves import prior_curve
from visionlab.proximal.network import ProximalMap, ProximalNetwork
from visionlab.proximal.prior import evaluate_prior, in_precision
from visionlab.tasks.trust import add_trust_code

if TYPE_CHECKING:
    from visionlab.proximal.curves import PriorCurve

PATHS: dict[PriorPath, tuple[float, ...]] = {
    "noise": (0.0, 0.05, 0.1, 0.15, 0.2),
    "blur": (0.0, 0.5, 1.0, 1.5, 2.0),
    "mixing": (0.0, 0.125, 0.25, 0.375, 0.5),
}
# below this alpha the inversion of single precision stalls above its tolerance
_SINGLE_PRECISION_CURVATURE = 1e-3


class LearnedPrior:
    """Evaluation of a trained `ProximalNetwork`: a table, and ``pictures/prior.png``.

    Numbers (the Laplacian case): the learned prox against soft thresholding, the prior against
    ``|x|``. Images: R along noise, blur and mixing, which must rise (Fang et al. 2024, Fig. 2).

    Args:
        count: images, the first of the validation data.
        size: images larger than this are cut to their centre.
        level: noise level of a network trained over a range; the upper end if None.
    """

    title = "Learned prior"

    def __init__(self, *, count: int = 24, size: int = 48, level: float | None = None) -> None:
        if count < 2 or size < 1:
            raise ValueError(f"count is at least 2 and size at least 1, got {count} and {size}")
        self.count, self.size, self.level = count, size, level

    def run(self, task: Any, data: Any, output: Path) -> list[dict[str, Any]]:
        """Rows of the table; the picture and its numbers go to ``output/pictures``."""
        model: ProximalNetwork = task.model
        if model.backbone.dim == 0:
            return self._laplacian(model, float(getattr(data, "scale", 1.0)), output)
        return self._along_paths(fixed_level(model, self.level), self._images(data), output)

    def _images(self, data: Any) -> Tensor:
        split = next(s for s in ("val", "test", "train") if s in data.datasets)
        found: list[Tensor] = []
        for batch in data.loader(split):
            found.extend(self._centre(image) for image in data.normalise(batch["image"]))
            if len(found) >= self.count:
                break
        return torch.stack(found[: self.count])

    def _centre(self, image: Tensor) -> Tensor:
        top, left = (max(0, (n - self.size) // 2) for n in image.shape[-2:])
        return image[..., top : top + self.size, left : left + self.size]

    def _along_paths(self, net: ProximalMap, images: Tensor, output: Path) -> list[dict[str, Any]]:
        from visionlab.plots.proximal_prior import plot_prior_curves
        from visionlab.plots.saving import save_figure

        exact = net.curvature < _SINGLE_PRECISION_CURVATURE
        images = images.to(torch.float64 if exact else torch.float32)
        net = in_precision(net, images.dtype)
        curves = []
        for path, levels in PATHS.items():
            generator = torch.Generator().manual_seed(0)
            curves.append(prior_curve(net, images, path, levels, generator=generator))
        numbers = {c.path: c.value.double().numpy() for c in curves}
        figure = plot_prior_curves(curves)
        save_figure(figure, output / "pictures" / "prior.png", data=numbers)
        return [_curve_row(curve) for curve in curves]

    def _laplacian(self, net: ProximalNetwork, scale: float, output: Path) -> list[dict[str, Any]]:
        from visionlab.plots.proximal_prior import plot_laplacian
        from visionlab.plots.saving import save_figure

        threshold = (net.noise_level or 1.0) ** 2 / scale
        y, f, x, prior = _laplacian_case(net)
        figure = plot_laplacian(
            y.numpy(), {"learned": f.numpy()}, x.numpy(), {"learned": prior.numpy()},
            threshold=threshold,
        )  # fmt: skip
        numbers = {"y": y.numpy(), "f": f.numpy(), "x": x.numpy(), "prior": prior.numpy()}
        save_figure(figure, output / "pictures" / "prior.png", data=numbers)
        prox, worst, best, from_minimum = laplacian_errors(net, threshold=threshold)
        return [
            {"error of": "prox", "mean": round(prox, 4), "largest": round(worst, 4)},
            {"error of": "prior, best constant", "mean": round(best, 4)},
            {"error of": "prior, minimum at 0", "mean": round(from_minimum, 4)},
        ]


def fixed_level(net: ProximalMap, level: float | None = None) -> ProximalMap:
    """The map at one noise level; the upper end of a range if None."""
    if isinstance(net, ProximalNetwork) and net.noise_range is not None:
        return net.at(net.noise_range[1] if level is None else level)
    return net


def _curve_row(curve: "PriorCurve") -> dict[str, Any]:
    """One line of a table about a path."""
    rise = (curve.value - curve.value[:1]).median(dim=1).values
    return {
        "path": curve.path,
        "triples in order (%)": round(100 * curve.ordered_triples(), 2),
        "converged (%)": round(100 * float(curve.converged.float().mean()), 1),
        "median rise of R": " ".join(f"{v:.3g}" for v in rise.tolist()),
    }


def _laplacian_case(net: ProximalMap) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Y and f(y) on [-4, 4], x and R(x) on [-2.5, 2.5], in float64; each (N,)."""
    net = in_precision(net, torch.float64)
    y = torch.linspace(-4, 4, 801, dtype=torch.float64)[:, None]
    x = torch.linspace(-2.5, 2.5, 501, dtype=torch.float64)[:, None]
    with torch.no_grad():
        f = net(y)
    prior = evaluate_prior(net, x, tolerance=1e-6, max_iterations=200).value
    return y[:, 0], f[:, 0], x[:, 0], prior


def laplacian_errors(
    net: ProximalMap, *, threshold: float = 1.0
) -> tuple[float, float, float, float]:
    """Errors beside soft thresholding and threshold |x|.

    Returns:
        Mean and largest error of f on ``|y| <= 4``; mean error of R on ``|x| <= 2.5`` with the
        constant that fits best, and with the minimum of R set to 0.
    """
    y, f, x, prior = _laplacian_case(net)
    error = (f - y.sign() * (y.abs() - threshold).clamp_min(0)).abs()
    truth = threshold * x.abs()
    from_minimum = (prior - prior.min() - truth).abs()
    best = (prior - truth - (prior - truth).median()).abs()
    return float(error.mean()), float(error.max()), float(best.mean()), float(from_minimum.mean())


def add_arguments(parser: ArgumentParser) -> None:
    """Arguments of ``tools/evaluate.py prior``."""
    add_trust_code(parser)
    parser.add_argument("checkpoint", type=Path, help="last.ckpt of a configs/proximal run")
    parser.add_argument("--count", type=int, default=24,
                        help="validation images of the run's data (default 24)")  # fmt: skip
    parser.add_argument("--size", type=int, default=48,
                        help="larger images are cut to their centre (default 48)")  # fmt: skip
    parser.add_argument("--level", type=float,
                        help="noise level of a network trained over a range")  # fmt: skip
    parser.add_argument("--output", type=Path, help="folder (default: that of the checkpoint)")


def run(args: Namespace) -> None:
    """Print the table, write the picture."""
    from visionlab.tasks.proximal_matching import ProximalMatching
    from visionlab.tasks.tables import format_table
    from visionlab.tasks.training import load_task

    evaluation = LearnedPrior(count=args.count, size=args.size, level=args.level)
    task, data = load_task(args.checkpoint, trust_code=args.trust_code)
    if not isinstance(task, ProximalMatching):
        raise ValueError(
            f"{args.checkpoint} holds a {type(task).__name__}; expected a run of "
            "configs/proximal/*.yaml"
        )
    output = args.output or args.checkpoint.parent
    print(format_table(evaluation.run(task, data, output), evaluation.title))
    print(f"written to {output / 'pictures' / 'prior.png'}")
