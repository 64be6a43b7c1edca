"""Named inverse problems, and the methods that are set against each other on them.

Every parameter of every method, the number of iterations included, is chosen on validation images;
test images are restored once, with what was chosen.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from visionlab.proximal import baselines
from visionlab.proximal.guarantees import GuaranteeWarning, default_weight
from visionlab.proximal.iteration import Callback, Restoration
from visionlab.proximal.network import ProximalMap, ProximalNetwork
from visionlab.proximal.physics import (
    CompressedSensing,
    Inpainting,
    Physics,
    SuperResolution,
    Tomography,
    add_noise,
    gaussian_blur,
)
from visionlab.proximal.physics.blur import CircularBlur
from visionlab.proximal.solvers import pnp_admm, pnp_hqs, pnp_mirror, pnp_pgd
from visionlab.registry import suggest

Setting = Mapping[str, float]


@dataclass(frozen=True)
class Problem:
    """A measurement operator with its noise.

    Attributes:
        title: for tables and pictures.
        noise: standard deviation, in units of the measurements.
        start: first image of the learned solvers; `Physics.initial` if None.
    """

    name: str
    title: str
    physics: Physics
    noise: float
    start: Callable[[Tensor], Tensor] | None = None

    def measure(self, x: Tensor, *, seed: int) -> Tensor:
        """``A x + noise``; an image's noise depends on the seed and its place in ``x`` only."""
        y = self.physics(x)
        parts = [
            add_noise(row, self.noise, generator=torch.Generator().manual_seed(seed * 100_003 + i))
            for i, row in enumerate(y)
        ]
        return torch.stack(parts)


# name -> (title, noise, operator for images of one shape)
PROBLEMS: dict[str, tuple[str, float, Callable[[Sequence[int]], Physics]]] = {
    "denoise": ("Denoising, noise .1", 0.1, lambda s: Inpainting(torch.ones(*s[-2:]))),
    "blur1": ("Gaussian blur 1, noise .02", 0.02, lambda s: gaussian_blur(1.0, truncate=6)),
    "blur2": ("Gaussian blur 2, noise .02", 0.02, lambda s: gaussian_blur(2.0, truncate=6)),
    "blur2_valid": (
        "Gaussian blur 2, no boundary assumed, noise .02",
        0.02,
        lambda s: gaussian_blur(2.0, boundary="valid"),
    ),
    "tomography": (
        "Tomography, 60 views, noise .003 of a unit-norm operator",
        0.003,
        lambda s: Tomography(s[-1], angles=60),
    ),
    "cs4": ("Compressed sensing 1/4, noise .01", 0.01, lambda s: CompressedSensing(s, ratio=1 / 4)),
    "cs16": (
        "Compressed sensing 1/16, noise .01",
        0.01,
        lambda s: CompressedSensing(s, ratio=1 / 16),
    ),
    "inpainting": (
        "Inpainting, half of the pixels, noise .02",
        0.02,
        lambda s: Inpainting.random(s, keep=0.5),
    ),
    "sr2": ("Super-resolution x2, noise .02", 0.02, lambda s: SuperResolution(2)),
}


def make_problem(name: str, image_shape: Sequence[int]) -> Problem:
    """A named problem for images of one shape.

    Raises:
        ValueError: an unknown name.
    """
    if name not in PROBLEMS:
        raise ValueError(f"no problem '{name}'. {suggest(name, PROBLEMS)}")
    title, noise, physics = PROBLEMS[name]
    return Problem(name, title, physics(tuple(image_shape)).float(), noise)


def psnr(x: Tensor, clean: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each image for data in [0, 1], in dB: ``(B,)``."""
    return -10 * torch.log10((x - clean).flatten(1).square().mean(1))


class StartFromTV:
    """The TV restoration as a first image.

    Where the least-squares image is far from any natural one (compressed sensing), a solver that
    starts there ends in a poor stationary point of the non-convex objective.
    """

    def __init__(self, physics: Physics, weight: float) -> None:
        self.physics, self.weight = physics, weight
        self._last: tuple[Tensor, Tensor] | None = None

    def __call__(self, y: Tensor) -> Tensor:
        """The image for measurements ``y``; the last one is kept."""
        if self._last is None or self._last[0] is not y:
            self._last = (y, baselines.tv_restore(y, self.physics, self.weight))
        return self._last[1]


class Watch:
    """A callback that notes the mean PSNR after each iteration."""

    def __init__(self, clean: Tensor) -> None:
        self.clean = clean
        self.curve: list[float] = []

    def __call__(self, k: int, x: Tensor) -> None:
        """Note iteration ``k``."""
        self.curve.append(float(psnr(x, self.clean).mean()))


def images_of(result: Tensor | Restoration) -> Tensor:
    """The images that a method returned."""
    return result.x if isinstance(result, Restoration) else result


@dataclass
class Method:
    """One way to restore.

    Attributes:
        grid: settings to choose from.
        run: ``(measurements, problem, setting, callback)`` -> images; a method that iterates calls
            the callback after each iteration, and the setting then also gets ``iterations``.
        chosen: the setting that won on the validation images.
    """

    name: str
    grid: Sequence[Setting]
    run: Callable[[Tensor, Problem, Setting, Callback | None], Tensor | Restoration]
    chosen: Setting = field(default_factory=dict)

    def choose(self, y: Tensor, clean: Tensor, problem: Problem) -> float:
        """Keep the setting, and the iteration, of the best mean PSNR; returns that PSNR."""
        best = -float("inf")
        for setting in self.grid:
            watch = Watch(clean)
            result = self.run(y, problem, setting, watch)
            if watch.curve:
                top = max(watch.curve)
                setting = {**setting, "iterations": watch.curve.index(top) + 1}
            else:
                top = float(psnr(images_of(result), clean).mean())
            if top > best:
                best, self.chosen = top, setting
        return best

    def at_edge(self) -> bool:
        """Whether the setting chosen lies at the end of its grid, which then should be longer."""
        for key in self.grid[0]:
            values = sorted({s[key] for s in self.grid})
            if len(values) > 2 and self.chosen.get(key) in (values[0], values[-1]):
                return True
        return False


def _plain(images: Callable[[Tensor, Problem, Setting], Tensor]) -> Callable[..., Tensor]:
    """A method without iterations to choose."""
    return lambda y, problem, setting, callback: images(y, problem, setting)


def geometric(low: float, high: float, count: int) -> list[float]:
    """``count`` values from ``low`` to ``high`` in equal ratios."""
    return torch.logspace(
        torch.log10(torch.tensor(low)).item(), torch.log10(torch.tensor(high)).item(), count
    ).tolist()


def classical_methods(problem: Problem, validation: Tensor) -> Iterator[Method]:
    """Input, and the baselines that fit the problem.

    Args:
        validation: clean images, for the spectrum of the Wiener filter.
    """
    physics = problem.physics
    if problem.name == "denoise":
        yield Method("input", [{}], _plain(lambda y, p, s: y))
        grid = [{"weight": w} for w in geometric(0.02, 0.3, 9)]
        yield Method(
            "TV", grid, _plain(lambda y, p, s: baselines.tv_denoise(y, s["weight"], iterations=200))
        )
        return
    if isinstance(physics, CircularBlur):
        yield Method("input", [{}], _plain(lambda y, p, s: y))
        spectrum = baselines.power_spectrum(validation)
        yield Method(
            "Wiener",
            [{}],
            _plain(lambda y, p, s: baselines.wiener(y, physics, noise=p.noise, spectrum=spectrum)),
        )
    elif isinstance(physics, Tomography):
        grid = [{"cutoff": c} for c in (0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)]
        yield Method("FBP (Hann)", grid, _plain(lambda y, p, s: physics.fbp(y, cutoff=s["cutoff"])))
    elif isinstance(physics, Inpainting):
        yield Method("input (mean filled)", [{}], _plain(lambda y, p, s: physics.initial(y)))
    if not isinstance(physics, Inpainting | CircularBlur):
        grid = [{"weight": w} for w in geometric(1e-4, 1.0, 9)]
        yield Method(
            "least squares",
            grid,
            _plain(lambda y, p, s: baselines.least_squares(y, p.physics, s["weight"])),
        )
    grid = [{"weight": w} for w in geometric(3e-5, 3e-2, 10)]
    yield Method(
        "TV",
        grid,
        _plain(lambda y, p, s: baselines.tv_restore(y, p.physics, s["weight"], iterations=300)),
    )


def learned_methods(
    problem: Problem,
    net: ProximalMap,
    *,
    levels: Sequence[float] = (),
    factors: Sequence[float] = (0.25, 0.35, 0.5, 0.7, 1.0, 1.5, 2.0, 4.0),
    iterations: int = 100,
    solvers: Sequence[str] = ("guaranteed", "admm", "mirror"),
) -> Iterator[Method]:
    """The network in its solvers, over weights around ``(s / sigma)^2``.

    Args:
        levels: noise levels to try of a network trained over a range.
        factors: of the default weight.
        iterations: most iterations to choose from.
        solvers: ``"admm"`` (no theorem at these weights), ``"guaranteed"`` (the same, safeguarded),
            ``"hqs"``, ``"mirror"`` (theorem at any weight), ``"pgd"`` (relaxed prox).
    """
    if problem.name == "denoise":
        name = "network, one pass"
        yield Method(name, [{}], _plain(lambda y, p, s: _fixed(net, p.noise)(y)))
        return
    grid = [
        {"weight": f * default_weight(problem.noise, level), "sigma": level}
        for level in (levels or [_level(net)])
        for f in factors
    ]
    for solver in solvers:
        title, call = SOLVERS[solver]

        def run(
            y: Tensor,
            p: Problem,
            s: Setting,
            callback: Callback | None,
            call: Callable[..., Restoration] = call,
        ) -> Restoration:
            count = int(s.get("iterations", iterations))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", GuaranteeWarning)  # the table says it
                return call(
                    y, p.physics, _fixed(net, s["sigma"]), s["weight"],
                    iterations=count, tolerance=0.0, callback=callback,
                    start=None if p.start is None else p.start(y),
                )  # fmt: skip

        yield Method(title if problem.start is None else f"{title}, from TV", grid, run)


def _pgd(
    y: Tensor, physics: Physics, net: ProximalMap, weight: float, **options: Any
) -> Restoration:
    return pnp_pgd(y, physics, net, 1 / weight, accelerate=True, guarantee=True, **options)


def _guaranteed(
    y: Tensor, physics: Physics, net: ProximalMap, weight: float, **options: Any
) -> Restoration:
    return pnp_admm(y, physics, net, weight, guarantee=True, **options)


SOLVERS: dict[str, tuple[str, Callable[..., Restoration]]] = {
    "admm": ("LPN, ADMM", pnp_admm),
    "guaranteed": ("LPN, ADMM safeguarded", _guaranteed),
    "pgd": ("LPN, PGD relaxed", _pgd),
    "hqs": ("LPN, half-quadratic", pnp_hqs),
    "mirror": ("LPN, mirror descent", pnp_mirror),
}


def _level(net: ProximalMap) -> float:
    if net.noise_level is not None:
        return net.noise_level
    if net.noise_range is not None:
        return (net.noise_range[0] * net.noise_range[1]) ** 0.5
    raise ValueError(
        "the network does not say what noise it was trained on, so no weight follows; rebuild it "
        "with noise_level=..."
    )


def _fixed(net: ProximalMap, level: float) -> ProximalMap:
    """The map at one noise level, where it has several."""
    if isinstance(net, ProximalNetwork) and net.noise_range is not None:
        low, high = net.noise_range
        return net.at(min(max(level, low), high))
    return net
