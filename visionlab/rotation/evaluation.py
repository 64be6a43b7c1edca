"""How far an estimated trajectory is from the true one, with intervals and baselines beside.

Errors are geodesic: the angle of ``R_est^-1 R_true``, never a difference of Euler angles.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from visionlab.rotation import so3
from visionlab.rotation.trajectory import Trajectory, relative

Array = NDArray[np.float64]

SHARES_DEG = (0.05, 0.1, 0.2)
FAILURE_DEG = 1.0
FLIP_DEG = 90.0
_NAMES = ("case", "method")  # columns of text
_BLOCK_SECONDS = 0.5  # errors of neighbouring frames are alike; blocks keep that in the bootstrap


@dataclass(frozen=True)
class ErrorSummary:
    """Errors of one method in degrees; intervals are 95 % block bootstrap."""

    name: str
    count: int
    mean: float
    median: float
    p90: float
    max: float
    shares: dict[float, float]  # threshold in deg -> share of frames below
    failures: int  # frames off by more than 1 deg
    flips: int  # frames off by more than 90 deg
    drift: float  # median error over 1 s, deg; NaN for clips shorter than that
    mean_interval: tuple[float, float]
    median_interval: tuple[float, float]

    def as_row(self) -> dict[str, Any]:
        """Plain values, for tables and JSON."""
        return {
            "method": self.name,
            "frames": self.count,
            "mean": self.mean,
            "mean_low": self.mean_interval[0],
            "mean_high": self.mean_interval[1],
            "median": self.median,
            "median_low": self.median_interval[0],
            "median_high": self.median_interval[1],
            "p90": self.p90,
            "max": self.max,
            **{f"below_{t:g}": share for t, share in self.shares.items()},
            "failures": self.failures,
            "flips": self.flips,
            "drift_1s": self.drift,
        }


def step_errors(estimate: ArrayLike, truth: ArrayLike) -> Array:
    """(N,) angle in degrees between camera rotations given as rotation vectors (N, 3)."""
    first, second = np.asarray(estimate, np.float64), np.asarray(truth, np.float64)
    if first.shape != second.shape or first.ndim != 2 or first.shape[1] != 3:
        raise ValueError(
            f"expected two arrays of rotation vectors (N, 3), got {first.shape} and {second.shape}"
        )
    return np.degrees(so3.angle_between(first, second))


def window_errors(estimate: ArrayLike, truth: Trajectory, *, seconds: float = 1.0) -> Array:
    """Drift: angle in degrees between the rotations over windows of ``seconds``.

    Args:
        estimate: (N-1, 3) steps; a window with an unknown step is left out.
        truth: N true orientations.
    """
    chained = Trajectory.from_steps(estimate, truth.times)
    broken = np.concatenate([[0], np.cumsum(~np.isfinite(np.asarray(estimate)).all(1))])
    ends = np.searchsorted(truth.times, truth.times + seconds - 1e-6)
    starts = np.flatnonzero(ends < len(truth))
    starts = starts[broken[starts] == broken[ends[starts]]]
    ends = ends[starts]
    moved = relative(chained.quaternions[starts], chained.quaternions[ends])
    expected = relative(truth.quaternions[starts], truth.quaternions[ends])
    return step_errors(moved, expected)


def bootstrap_interval(
    values: ArrayLike,
    statistic: Callable[..., Any],
    *,
    rng: np.random.Generator,
    block: int = 1,
    draws: int = 1000,
) -> tuple[float, float]:
    """95 % interval of ``statistic(values, axis=1)`` by the circular block bootstrap.

    Politis and Romano 1992: blocks of ``block`` neighbours are drawn, so that errors which are
    alike from frame to frame do not make the interval too narrow. ``block=1`` is the plain
    bootstrap.
    """
    sample = np.asarray(values, np.float64)
    count = len(sample)
    if count < 2:
        return (float("nan"), float("nan"))
    length = int(np.clip(block, 1, count))
    starts = rng.integers(0, count, (draws, -(-count // length)))
    index = (starts[..., None] + np.arange(length)) % count
    low, high = np.quantile(
        statistic(sample[index.reshape(draws, -1)[:, :count]], axis=1), [0.025, 0.975]
    )
    return (float(low), float(high))


def summarise(
    name: str,
    errors: ArrayLike,
    *,
    rng: np.random.Generator,
    drift: ArrayLike = (),
    block: int = 1,
) -> ErrorSummary:
    """Statistics of errors in degrees.

    Raises:
        ValueError: no error to summarise.
    """
    values = np.asarray(errors, np.float64)
    windows = np.asarray(drift, np.float64)
    if not len(values):
        raise ValueError(f"no frame of '{name}' has both an estimate and a ground truth")
    return ErrorSummary(
        name=name,
        count=len(values),
        mean=float(values.mean()),
        median=float(np.median(values)),
        p90=float(np.quantile(values, 0.9)),
        max=float(values.max()),
        shares={t: float((values < t).mean()) for t in SHARES_DEG},
        failures=int((values > FAILURE_DEG).sum()),
        flips=int((values > FLIP_DEG).sum()),
        drift=float(np.median(windows)) if len(windows) else float("nan"),
        mean_interval=bootstrap_interval(values, np.mean, rng=rng, block=block),
        median_interval=bootstrap_interval(values, np.median, rng=rng, block=block),
    )


def align(estimate: Trajectory, truth: Trajectory, *, by: str = "frame") -> Trajectory:
    """Ground truth at the frames of the estimate.

    Args:
        by: ``frame`` takes equal frame numbers; ``time`` interpolates at the times of the estimate.

    Raises:
        ValueError: frames without ground truth, or of other length.
    """
    if by == "time":
        return Trajectory(estimate.frames, estimate.times, truth.at(estimate.times))
    if by != "frame":
        raise ValueError(f"associate by 'frame' or 'time', got '{by}'")
    place = {int(frame): i for i, frame in enumerate(truth.frames)}
    missing = [int(f) for f in estimate.frames if int(f) not in place]
    if missing:
        raise ValueError(
            f"the estimate has {len(estimate)} frames, the ground truth {len(truth)}, and frame "
            f"{missing[0]} ({len(missing)} in all) has none: give the ground truth of this very "
            "video, or associate by time where both carry the same clock"
        )
    index = [place[int(f)] for f in estimate.frames]
    return Trajectory(estimate.frames, estimate.times, truth.quaternions[index])


def evaluate(
    estimate: Trajectory,
    truth: Trajectory,
    *,
    seed: int = 0,
    by: str = "frame",
    name: str = "estimate",
    others: Mapping[str, ArrayLike] | None = None,
) -> list[ErrorSummary]:
    """Errors of an estimate, of the zero rotation and of further steps, on the same frames.

    Args:
        others: further (N-1, 3) steps by name; the least-squares steps that `pipeline` stores in
            the estimate are added by themselves.

    Example:
        >>> turn = Trajectory.from_steps([[0.0, 0.01, 0.0]] * 3, [0.0, 0.1, 0.2, 0.3])
        >>> [(row.name, round(row.mean, 3)) for row in evaluate(turn, turn)]
        [('estimate', 0.0), ('zero', 0.573)]
    """
    exact = align(estimate, truth, by=by)
    gap = float(np.median(np.diff(exact.times))) if len(exact) > 1 else np.nan
    block = max(1, round(_BLOCK_SECONDS / gap)) if gap > 0 else 1
    table = []
    for label, steps in _candidates(estimate, name=name, others=others).items():
        valid = np.isfinite(steps).all(1)
        table.append(
            summarise(
                label,
                step_errors(steps[valid], exact.steps[valid]),
                rng=np.random.default_rng(seed),
                drift=window_errors(steps, exact),
                block=block,
            )
        )
    return table


def errors_by_method(
    estimate: Trajectory, truth: Trajectory, *, by: str = "frame"
) -> dict[str, Array]:
    """Errors in degrees of each frame, by the names of `evaluate`; unknown frames are left out."""
    exact = align(estimate, truth, by=by)
    return {
        name: step_errors(steps[valid], exact.steps[valid])
        for name, steps in _candidates(estimate).items()
        if (valid := np.isfinite(steps).all(1)).any()
    }


def _candidates(
    estimate: Trajectory,
    *,
    name: str = "estimate",
    others: Mapping[str, ArrayLike] | None = None,
) -> dict[str, Array]:
    """Steps (N-1, 3) by method: the estimate and what stands beside it; NaN across its cuts."""
    if len(estimate) < 2:
        raise ValueError(f"the estimate has {len(estimate)} frame; at least two are needed")
    found: dict[str, Any] = {name: estimate.steps, "zero": np.zeros((len(estimate) - 1, 3))}
    stored = least_squares_steps(estimate)
    if stored is not None:
        found["least squares"] = stored
    known = estimate.known[:, None]
    found |= dict(others or {})
    return {label: np.where(known, np.asarray(s, np.float64), np.nan) for label, s in found.items()}


def least_squares_steps(estimate: Trajectory) -> Array | None:
    """(N-1, 3) least-squares rotations that `pipeline` wrote beside the estimate, if it did."""
    names = ("ls_wx", "ls_wy", "ls_wz")
    if not all(name in estimate.columns for name in names):
        return None
    table = np.stack([np.asarray(estimate.columns[n], np.float64) for n in names], 1)
    return table[1:]


def format_table(rows: list[dict[str, Any]]) -> str:
    """Rows as a text table that is also valid Markdown; names are left-aligned."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[_text(row.get(name)) for name in names] for row in rows]
    texts = [name in _NAMES for name in names]
    widths = [max(len(line[i]) for line in [names, *cells]) for i in range(len(names))]

    def line(values: list[str]) -> str:
        padded = [v.ljust(w) if left else v.rjust(w) for v, w, left in zip(values, widths, texts)]
        return "| " + " | ".join(padded) + " |"

    rule = "|" + "|".join(
        "-" * (w + 2) if left else "-" * (w + 1) + ":" for w, left in zip(widths, texts)
    )
    return "\n".join([line(names), rule + "|", *(line(values) for values in cells)])


def _text(value: Any) -> str:
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return "-"
    if isinstance(value, float):
        return f"{value:.4f}" if abs(value) < 10 else f"{value:.2f}"
    return str(value)


def table_rows(summaries: list[ErrorSummary]) -> list[dict[str, Any]]:
    """Rows for `format_table`: degrees, shares in per cent."""
    return [
        {
            "method": s.name,
            "frames": s.count,
            "mean deg": s.mean,
            "95 %": f"{s.mean_interval[0]:.4f}-{s.mean_interval[1]:.4f}",
            "median": s.median,
            "p90": s.p90,
            "max": s.max,
            **{f"% <{t:g}": f"{100 * share:.1f}" for t, share in s.shares.items()},
            ">1 deg": s.failures,
            "flips": s.flips,
            "1 s drift": s.drift,
        }
        for s in summaries
    ]
