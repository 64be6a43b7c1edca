"""Restoration beside the libraries of the field: deepinv's solver, scikit-image's TV.

    python tools/benchmark.py restoration

The network is untrained: what is compared is that both libraries compute the same thing, and what
it costs. Quality is measured by ``tools/evaluate.py restore`` on a trained network.
"""

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from visionlab.figures import Column, FigureTable, at_most, in_turn, measured, publish
from visionlab.figures.timing import MILLISECONDS, UNITS, show, timings
from visionlab.proximal import LearnedProximalNetwork, pnp_pgd
from visionlab.proximal.baselines import total_variation, tv_denoise
from visionlab.proximal.physics import add_noise, gaussian_blur

WEIGHT = 1.3


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print both tables; a library that is absent is named."""
    p = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    p.add_argument("--size", type=int, default=128)
    p.add_argument("--batch", type=int, default=4)
    p.add_argument("--repetitions", type=int, default=5)
    args = p.parse_args(arguments)
    torch.manual_seed(0)
    images = pictures(args.batch, args.size)
    for library, module, table in (
        ("scikit-image", "skimage", tv_table),
        ("deepinv", "deepinv", solver_table),
    ):
        if importlib.util.find_spec(module) is None:
            print(f"{library} left out: it is not installed")
        else:
            publish(table(images, args.repetitions))
    return 0


def pictures(batch: int, size: int) -> Tensor:
    """Piecewise smooth test images (B, 1, H, W) in [0, 1], the same every time."""
    y, x = torch.meshgrid(*[torch.linspace(0, 1, size)] * 2, indexing="ij")
    shift = torch.arange(batch)[:, None, None] / 7
    return (0.5 * ((x + shift) % 1) + 0.5 * ((x - 0.5) ** 2 + (y - 0.5) ** 2 < 0.1)).unsqueeze(1)


def tv_table(images: Tensor, repetitions: int) -> FigureTable:
    """Total-variation denoising to the same objective."""
    from skimage.restoration import denoise_tv_chambolle

    generator = torch.Generator().manual_seed(0)
    noisy = add_noise(images, 0.1, generator=generator)
    weight = 0.1

    def skimage_way() -> Tensor:
        found = [denoise_tv_chambolle(i.numpy(), weight=weight, eps=1e-6, max_num_iter=1000)
                 for i in noisy[:, 0]]  # fmt: skip
        return torch.from_numpy(np.stack(found)).unsqueeze(1)

    def objective(x: Tensor) -> float:
        data = 0.5 * (x - noisy).square().flatten(1).sum(1)
        return float((data + weight * total_variation(x)).mean())

    target = objective(skimage_way())
    enough = next(
        n for n in range(5, 1000, 5) if objective(tv_denoise(noisy, weight, iterations=n)) <= target
    )
    peer = "scikit-image, tolerance 1e-6"
    arms = {
        f"visionlab, {enough} iterations (as good)": lambda: tv_denoise(
            noisy, weight, iterations=enough
        ),
        "visionlab, 100 iterations (default)": lambda: tv_denoise(noisy, weight),
        peer: skimage_way,
    }
    figures = timings(in_turn(arms, repetitions), base=peer)
    show(figures)
    reached = [objective(arm()) for arm in arms.values()]
    figures = [replace(f, values={**f.values, "objective": o}) for f, o in zip(figures, reached)]
    return measured(
        "proximal.tv",
        f"Total-variation denoising of {len(images)} images of {images.shape[-1]} px",
        head="TV (ROF), weight .1",
        columns=[
            MILLISECONDS,
            Column("ratio", "{ratio:.2f}x"),
            Column("objective, smaller is better", "{objective:.3f}"),
        ],
        figures=figures,
        units=UNITS,
    )


def solver_table(images: Tensor, repetitions: int) -> FigureTable:
    """PnP-PGD with the same network, start and number of iterations."""
    import deepinv

    from visionlab.proximal.deepinv import LPNPrior

    net = LearnedProximalNetwork(in_channels=1, hidden=8, noise_level=0.1).eval()
    blur = gaussian_blur(1.0)
    y = add_noise(blur(images), 0.02, generator=torch.Generator().manual_seed(0))
    size = images.shape[-1]
    kernel = blur.kernel.float()[None, None]
    physics = deepinv.physics.BlurFFT((1, size, size), kernel)
    solver = deepinv.optim.PGD(
        data_fidelity=deepinv.optim.L2(),
        prior=LPNPrior(net, explicit_prior=False),
        lambda_reg=WEIGHT,
        stepsize=1 / WEIGHT,
        max_iter=20,
        early_stop=False,
        custom_init=lambda y, physics: {"est": (y, torch.zeros_like(y))},
    )
    answers: dict[str, Tensor] = {}

    def ours() -> None:
        found = pnp_pgd(y, blur, net, 1 / WEIGHT, iterations=20, tolerance=0, start=y)
        answers["ours"] = found.x

    def theirs() -> None:
        answers["theirs"] = solver(y, physics).detach()

    figures = timings(in_turn({"visionlab": ours, "deepinv": theirs}, repetitions), base="deepinv")
    show(figures)
    difference = float((answers["ours"] - answers["theirs"]).norm() / answers["theirs"].norm())
    print(f"relative difference of the answers: {difference:.1e}")
    figures[0] = replace(
        figures[0],
        values={**figures[0].values, "difference": difference},
        claims=[at_most("difference", 1e-4)],
    )
    return measured(
        "proximal.deepinv",
        f"20 steps of PnP-PGD on {len(images)} images of {size} px, same network",
        head="solver",
        columns=[
            MILLISECONDS,
            Column("ratio", "{ratio:.2f}x"),
            Column("relative difference of the answers", "{difference:.0e}"),
        ],
        figures=figures,
        units={**UNITS, "difference": "of the 2-norm"},
    )


if __name__ == "__main__":
    sys.exit(main())
