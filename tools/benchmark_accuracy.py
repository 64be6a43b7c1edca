"""Accuracy of the camera rotation beside every rival that is installed, as records.

    python tools/benchmark.py accuracy scenes                 synthetic flows S0 to S5
    python tools/benchmark.py accuracy recordings             the evaluation data, where it exists

The same correspondences go to every method. ``tools/benchmark_rotation.py compare`` prints more of
the same comparison, on recordings of your own too.
"""

import argparse
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from visionlab.figures import (
    Claim,
    Column,
    Figure,
    FigureTable,
    at_least,
    at_most,
    measured,
    publish,
)
from visionlab.rotation import comparison
from visionlab.rotation.command import set_threads

SCENES = ("S0", "S1", "S2", "S3", "S4", "S5")
NAMES = ("rotation", "crowd", "dense crowd", "walking", "driving", "wide, fast")
NAMES_OF = {
    "essential magsac": "OpenCV essential, MAGSAC", "essential ransac": "OpenCV essential, RANSAC",
    "homography": "OpenCV homography, MAGSAC", "poselib": "PoseLib", "two point": "2-point RANSAC",
    "published": "published rule", "huber": "Huber", "zero": "zero rotation",
}  # fmt: skip
DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "rotation"

CLAIMS = {
    "ours irls": [
        at_most("S0", 0.003), at_least("S1_share", 92), at_least("S2_share", 88),
        at_least("S5_share", 85),
    ],
    "ours joint": [
        at_most("S1", 0.045), at_most("S2", 0.058), at_most("S3", 0.026), at_most("S4", 0.012),
        at_least("S1_share", 90), at_least("S2_share", 90), at_least("S3_share", 90),
    ],
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print one table."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("table", choices=("scenes", "recordings"))
    p.add_argument("--count", type=int, default=40, help="flows per scene and seed")
    p.add_argument("--seeds", type=int, nargs="+", default=[1, 7, 11], help="of the scenes")
    p.add_argument("--stride", type=int, default=2, help="every so many pairs of a recording")
    p.add_argument("--data", type=Path, default=DATA, help="folder with the recordings")
    options = p.parse_args(arguments)
    set_threads(1)
    if options.table == "scenes":
        publish(scenes_table(options.count, options.seeds))
    elif not options.data.is_dir():
        print(f"left out: no evaluation data at {options.data} (not part of the repository)")
    else:
        publish(recordings_table(options.data, options.stride))
    return 0


def scenes_table(count: int, seeds: Sequence[int]) -> FigureTable:
    """Median error and share below .1 degree on every scene, all seeds together; ms on S1."""
    cases = [pooled([comparison.scene_case(s, count=count, seed=n) for n in seeds]) for s in SCENES]
    rows = comparison.compare(cases, comparison.all_methods())
    figures = []
    for method, found in by_method(rows).items():
        values: dict[str, Any] = {"flips": int(sum(r["flips"] for r in found))}
        for scene, row in zip(SCENES, found):
            values |= {scene: row["median"], f"{scene}_share": float(row["% <0.1"])}
        values["ms"] = found[1]["ms median"]
        print(method, " ".join(f"{k} {v:.3g}" for k, v in values.items()), flush=True)
        claims = list(CLAIMS.get(method, ()))
        if method.startswith("ours"):
            claims.append(at_most("flips", 0))
        figures.append(Figure(NAMES_OF.get(method, method), values, claims=claims))
    columns = [
        Column(f"{s} {n}", f"{{{s}:.2g}} / {{{s}_share:.0f}}", best=f"min {s}")
        for s, n in zip(SCENES, NAMES)
    ]
    return measured(
        "rotation.scenes",
        "Synthetic flow: median error in degrees / % of flows below .1 degree",
        head="method",
        columns=[*columns, Column("ms (S1)", "{ms:.2g}"), Column("flips", "{flips}")],
        figures=figures,
        note=f"{count} flows a scene and seed ({', '.join(map(str, seeds))}); the same points for "
        "all; wall ms of one thread; two-point, Huber and least squares are plain NumPy; flips are "
        "answers off by more than 90 degrees, over all scenes.",
        units=dict.fromkeys(SCENES, "degree") | {f"{s}_share": "%" for s in SCENES} | {"ms": "ms"},
    )


def pooled(cases: Sequence[comparison.Case]) -> comparison.Case:
    """One case of the pairs of several with the same camera."""
    return replace(cases[0], pairs=[pair for case in cases for pair in case.pairs])


def recordings_table(data: Path, stride: int) -> FigureTable:
    """Mean error on the panned clip and on the EuRoC excerpt, Lucas-Kanade tracks."""
    from visionlab.rotation import Camera, LucasKanade
    from visionlab.rotation.sequences import read_sequence

    clips = {"semi": ("semi_vtest_easy.mp4", 413.75), "euroc": ("euroc_v101_micro", 229.0)}
    cases = []
    for name, focal in clips.values():
        known = read_sequence(data / name, camera=Camera.from_focal(focal, *size_of(data / name)))
        cases.append(comparison.recorded_case(known, LucasKanade(), stride=stride))
    rows = comparison.compare(cases, comparison.all_methods())
    figures = []
    for method, found in by_method(rows).items():
        values: dict[str, Any] = {}
        for name, row in zip(clips, found):
            values |= {name: row["mean deg"], f"{name}_ms": row["ms median"]}
            values[f"{name}_flips"] = int(row["flips"])
        print(method, " ".join(f"{k} {v:.3g}" for k, v in values.items()), flush=True)
        figures.append(
            Figure(NAMES_OF.get(method, method), values, claims=recording_claims(method))
        )
    return measured(
        "rotation.recordings",
        "Real pixels, Lucas-Kanade tracks: mean error in degrees",
        head="method",
        columns=[
            Column("panned clip", "{semi:#.2g}", best="min semi"),
            Column("ms", "{semi_ms:.2g}"),
            Column("flips", "{semi_flips}"),
            Column("EuRoC excerpt", "{euroc:#.2g}", best="min euroc"),
            Column("ms", "{euroc_ms:.2g}"),
            Column("flips", "{euroc_flips}"),
        ],
        figures=figures,
        note=f"One pair in {stride}; the same tracks for all, wall ms of the rotation alone.",
        units={"semi": "degree", "euroc": "degree", "semi_ms": "ms", "euroc_ms": "ms"},
    )


def recording_claims(method: str) -> list[Claim]:
    """What is claimed of the default on recordings."""
    if method == "ours irls":
        return [at_most("semi", 0.007), at_most("euroc", 0.010), at_most("semi_flips", 0)]
    return []


def by_method(rows: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Rows of `comparison.compare` per method, in the order of the cases."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["method"], []).append(row)
    return found


def size_of(path: Path) -> tuple[int, int]:
    """Width and height of a recording's pictures."""
    from visionlab.rotation.video import open_source

    frames = path / "frames"
    return open_source(str(frames if frames.is_dir() else path)).size


if __name__ == "__main__":
    raise SystemExit(main())
