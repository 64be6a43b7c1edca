"""Pictures of rotation over time, its errors, and the votes around the winner.

Each function takes arrays and returns a matplotlib figure; colours differ in lightness and every
line has a style of its own, so that the pictures survive a grey printer.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from visionlab.rotation.trajectory import CUT, DUPLICATE, Trajectory

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[np.float64]

_AXES = ("x: tilt up +", "y: pan right +", "z: roll clockwise +")
_STYLES = (("#0b4f8a", "-"), ("#e07b00", "--"), ("#8a8a8a", ":"), ("#6a1b7a", "-."))
_FLAGGED = {"ambiguous", "out_of_range", "low_texture", "degenerate"}


def plot_rates(trajectories: Mapping[str, Trajectory] | Trajectory) -> "Figure":
    """Angular velocity in deg/s over time, one panel an axis; cuts are gaps, flagged frames marked.

    Args:
        trajectories: one, or several by name (e.g. estimate and ground truth).
    """
    figure, panels = _panels(3, "Rotation rate, deg/s")
    for name, chain, look in _looks(trajectories):
        middle = (chain.times[1:] + chain.times[:-1]) / 2
        for axis, panel in enumerate(panels):
            panel.plot(middle, np.degrees(chain.rates[:, axis]), label=name, **look)
    _mark_events(panels, next(iter(_named(trajectories).values())))
    return _finish(figure, panels, _AXES)


def plot_angles(trajectories: Mapping[str, Trajectory] | Trajectory) -> "Figure":
    """Sum of the rotations in degrees over time, one panel an axis of the camera."""
    figure, panels = _panels(3, "Cumulative angle, deg")
    for name, chain, look in _looks(trajectories):
        for axis, panel in enumerate(panels):
            panel.plot(chain.times, np.degrees(chain.angles[:, axis]), label=name, **look)
    _mark_events(panels, next(iter(_named(trajectories).values())))
    return _finish(figure, panels, _AXES)


def plot_errors(errors: Mapping[str, ArrayLike]) -> "Figure":
    """Histogram of errors in degrees on a logarithmic axis, and the share of frames below.

    Args:
        errors: degrees per frame by method.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    counts, shares = figure.subplots(1, 2)
    # below a ten-thousandth of a degree nothing is left to tell
    table = {name: np.maximum(np.asarray(values, float), 1e-4) for name, values in errors.items()}
    low = min(values.min() for values in table.values())
    high = max(values.max() for values in table.values())
    bins = np.geomspace(low * 0.9, high * 1.1, 40)
    for (name, values), (colour, line) in zip(table.items(), _STYLES):
        label = f"{name}: median {np.median(values):.4f}, mean {values.mean():.4f} deg"
        counts.hist(values, bins, histtype="step", color=colour, ls=line, lw=1.6, label=label)
        part = np.arange(1, len(values) + 1) / len(values)
        shares.step(np.sort(values), 100 * part, line, where="post", color=colour, lw=1.6)
    counts.set(xscale="log", xlabel="error per frame, deg", ylabel="frames")
    shares.set(xscale="log", xlabel="error per frame, deg", ylabel="frames below, %", ylim=(0, 101))
    figure.legend(loc="outside upper center", ncols=1, frameon=False, fontsize=9)
    for panel in (counts, shares):
        panel.grid(alpha=0.3, which="major")
    return figure


def plot_votes(
    lines: ArrayLike, *, bins: int, bin_size: float, cell: int, reach: int = 12, title: str = ""
) -> "Figure":
    """Votes around the winning cell: the three slices through it, counted anew from the lines.

    Args:
        lines: (N, 4) of `visionlab.rotation.lines.lines_from_plane`.
        bins: cells per axis of the grid that the lines were made for.
        bin_size: rad.
        cell: flat index of the winner.
        reach: cells shown on either side.
        title: e.g. which frame it is.
    """
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    winner = np.array(np.unravel_index(cell, (bins, bins, bins)))
    cube = votes_around(lines, bins=bins, winner=winner, reach=reach)
    centre = np.degrees((winner - (bins - 1) // 2) * bin_size)
    half = np.degrees((reach + 0.5) * bin_size)
    figure = Figure(figsize=(11, 3.9), layout="constrained")
    panels = figure.subplots(1, 3)
    image: Any = None
    scale = PowerNorm(0.5, vmin=0, vmax=max(int(cube.max()), 1))  # the flanks hold few votes
    for panel, (across, up) in zip(panels, ((0, 1), (0, 2), (1, 2))):
        third = 3 - across - up
        plane = np.take(cube, reach, axis=third).T  # rows: the axis that points up
        extent = (*(centre[across] + [-half, half]), *(centre[up] + [-half, half]))
        image = panel.imshow(plane, origin="lower", extent=extent, cmap="magma", norm=scale)
        panel.plot(
            *centre[[across, up]], "s", mfc="none", mec="#40c0ff", ms=13, mew=1.5, label="winner"
        )
        panel.set(xlabel=f"rotation about {'xyz'[across]}, deg")
        panel.set(ylabel=f"rotation about {'xyz'[up]}, deg")
        panel.set_title(f"slice at {'xyz'[third]} = {centre[third]:.2f} deg", fontsize=10)
    panels[0].legend(loc="lower left", fontsize=8)
    figure.suptitle(title, fontsize=11)
    figure.colorbar(image, ax=list(panels), label="votes per cell (square-root scale)")
    return figure


def votes_around(
    lines: ArrayLike, *, bins: int, winner: ArrayLike, reach: int
) -> NDArray[np.int64]:
    """(2 reach + 1)^3 votes of the cells around ``winner`` (3,), by the plain rule."""
    side = 2 * reach + 1
    cube = np.zeros((side, side, side), np.int64)
    corner = np.asarray(winner, np.int64) - reach
    x0, dx, y0, dy = np.asarray(lines, np.float64).T
    for k in range(side):
        z = int(corner[2]) + k
        if not 0 <= z < bins:
            continue
        fx, fy = x0 + dx * z, y0 + dy * z
        with np.errstate(invalid="ignore"):
            hit = (fx >= 0) & (fx < bins) & (fy >= 0) & (fy < bins)
        ix = np.floor(fx[hit]).astype(np.int64) - corner[0]
        iy = np.floor(fy[hit]).astype(np.int64) - corner[1]
        near = (ix >= 0) & (ix < side) & (iy >= 0) & (iy < side)
        np.add.at(cube[:, :, k], (ix[near], iy[near]), 1)
    return cube


def _named(trajectories: Mapping[str, Trajectory] | Trajectory) -> Mapping[str, Trajectory]:
    if isinstance(trajectories, Trajectory):
        return {"estimate": trajectories}
    return trajectories


def _looks(
    trajectories: Mapping[str, Trajectory] | Trajectory,
) -> list[tuple[str, Trajectory, dict[str, Any]]]:
    """Name, trajectory and line style; the first is a thin line on top, later ones lie below it."""
    found = []
    for i, (name, chain) in enumerate(_named(trajectories).items()):
        colour, line = _STYLES[i % len(_STYLES)]
        width = 1.1 if i == 0 else 3.5
        look = {"color": colour, "ls": line if i == 0 else "-", "lw": width, "zorder": 3 - 0.1 * i}
        found.append((name, chain, look | ({} if i == 0 else {"alpha": 0.45})))
    return found


def _panels(count: int, label: str) -> tuple["Figure", list[Any]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6.5), layout="constrained")
    panels = list(figure.subplots(count, 1, sharex=True))
    figure.supylabel(label, fontsize=11)
    panels[-1].set_xlabel("time, s")
    return figure, panels


def _mark_events(panels: list[Any], chain: Trajectory) -> None:
    """Cuts as vertical lines, repeated pictures as grey spans, doubtful frames as dots."""
    status = list(chain.columns.get("status", []))
    for panel in panels:
        seen: set[str] = set()
        for i, name in enumerate(status):
            if name == CUT:
                label = None if CUT in seen else "cut"
                panel.axvline(chain.times[i], color="black", lw=1.0, label=label)
            elif name == DUPLICATE:
                label = None if DUPLICATE in seen else "repeated picture"
                panel.axvspan(
                    chain.times[i - 1], chain.times[i], color="#cccccc", lw=0, label=label
                )
            elif name in _FLAGGED:
                label = None if "flag" in seen else "doubtful (status)"
                seen.add("flag")
                panel.plot(
                    chain.times[i], 0.02, "x", color="#b00020", ms=5, label=label,
                    transform=panel.get_xaxis_transform(), clip_on=False,
                )  # fmt: skip
            seen.add(name)


def _finish(figure: "Figure", panels: list[Any], titles: tuple[str, ...]) -> "Figure":
    for panel, title in zip(panels, titles):
        panel.set_title(title, fontsize=10, loc="left")
        panel.grid(alpha=0.3)
        panel.axhline(0, color="black", lw=0.5)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=5, frameon=False, fontsize=9)
    return figure
