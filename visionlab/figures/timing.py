"""Times of several ways to do one thing, taken in turn so that a busy machine hits all alike."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

from visionlab.figures.record import Column, Figure

UNITS = {"ms": "ms", "least": "ms", "ratio": "of medians"}
MILLISECONDS = Column("ms, median (least)", "{ms} ({least})")


def in_turn(
    arms: Mapping[str, Callable[[], object]],
    repetitions: int,
    *,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, list[float]]:
    """Seconds of each repetition of each arm, after one call of each to warm up.

    Args:
        arms: what is timed, by name.
        repetitions: rounds; every round calls each arm once.
        clock: CPU time of the process by default, which other programs disturb less than the wall
            clock.
    """
    for arm in arms.values():
        arm()
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(repetitions):
        for name, arm in arms.items():
            start = clock()
            arm()
            seconds[name].append(clock() - start)
    return seconds


def timings(seconds: Mapping[str, Sequence[float]], *, base: str) -> list[Figure]:
    """A figure per arm: ``ms`` (median), ``least``, and ``ratio`` of medians to the base arm."""
    reference = statistics.median(seconds[base])
    figures = []
    for name, times in seconds.items():
        median, least = 1e3 * statistics.median(times), 1e3 * min(times)
        values = {"ms": median, "least": least, "ratio": median / (1e3 * reference)}
        figures.append(Figure(name, values, spread={"ms": [least, 1e3 * max(times)]}))
    return figures


def show(figures: Sequence[Figure]) -> None:
    """Print medians, minima and ratios of `timings`."""
    for f in figures:
        v = f.values
        print(f"{f.what:44s} {v['ms']:9.2f} ({v['least']:8.2f}) ms  {v['ratio']:5.2f}x", flush=True)
