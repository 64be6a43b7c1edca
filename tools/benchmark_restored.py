"""Figures of ``tools/evaluate.py restore``, from the folders that it wrote.

python tools/benchmark.py restored --run "12 Kodak crops" FOLDER --long-run "head CT" FOLDER
"""

import argparse
import csv
from pathlib import Path
from typing import Any

from visionlab.figures import Column, Figure, FigureTable, at_least, at_most, measured, publish
from visionlab.tasks.restoration_problems import PROBLEMS

Row = dict[str, str]

# method of the table -> column; the first of a column that a problem has
_COLUMNS = {
    "input": ("input", "input (mean filled)", "FBP (Hann)"),
    "classical": ("Wiener", "least squares"),
    "tv": ("TV",),
    "theorem": ("LPN, ADMM safeguarded", "LPN, mirror descent"),
    "admm": ("LPN, ADMM",),
}
_FROM_TV = ", from TV"
# what wrote the folders
_RESTORE = "python tools/evaluate.py restore CKPT --problems"
_COMMANDS = {
    "proximal.restoration": f"{_RESTORE} blur1 blur2 --iterations 60 --solvers guaranteed admm",
    "proximal.photos": f"{_RESTORE} denoise --crops 1 3",
    "proximal.long_runs": f"{_RESTORE} blur1 blur2 --solvers guaranteed --long 1000",
}


def restoration(runs: list[list[str]], note: str) -> FigureTable:
    """Every problem of every run: the guaranteed solver beside the baselines."""
    figures = []
    for title, folder in runs:
        rows = read(Path(folder) / "restoration.csv")
        for problem in dict.fromkeys(r["problem"] for r in rows):
            if problem != "denoise":
                figures.append(problem_figure(title, [r for r in rows if r["problem"] == problem]))
    return measured(
        "proximal.restoration",
        "Inverse problems: PSNR in dB",
        head="problem",
        columns=[
            Column("input", "{input:.2f}"),
            Column("Wiener / least squares", "{classical:.2f}"),
            Column("TV", "{tv:.2f}"),
            Column("ours, theorem holds", "{theorem:.2f}"),
            Column("ADMM, no theorem", "{admm:.2f}"),
            Column("ours over TV", "{over_tv:+.2f}"),
        ],
        figures=figures,
        source="run folder",
        note=note,
    )


def problem_figure(title: str, rows: list[Row]) -> Figure:
    """The row of one problem; above least squares, TV and ADMM without a theorem is claimed."""
    found = {r["method"].removesuffix(_FROM_TV): float(r["PSNR"]) for r in rows}
    values = {
        column: next(found[m] for m in methods if m in found)
        for column, methods in _COLUMNS.items()
        if any(m in found for m in methods)
    }
    claims = []
    for rival in ("classical", "tv", "admm"):
        if rival in values:
            values[f"over_{rival}"] = round(values["theorem"] - values[rival], 2)
            claims.append(at_least(f"over_{rival}", 0))
    solver = next(m for m in _COLUMNS["theorem"] if m in found).removeprefix("LPN, ")
    return Figure(f"{title}: {PROBLEMS[rows[0]['problem']][0]} ({solver})", values, claims=claims)


def denoising(runs: list[list[str]], note: str) -> FigureTable:
    """Denoising beside TV; ``runs`` holds title, folder and the least PSNR that is claimed."""
    figures = []
    for title, folder, least in runs:
        rows = [r for r in read(Path(folder) / "restoration.csv") if r["problem"] == "denoise"]
        tv = next(float(r["PSNR"]) for r in rows if r["method"] == "TV")
        for r in rows:
            values = {"db": float(r["PSNR"]), "ssim": float(r["SSIM"])}
            claims = []
            if r["method"].startswith("network"):
                values["over_tv"] = round(values["db"] - tv, 2)
                claims = [at_least("db", float(least)), at_least("over_tv", 0)]
            figures.append(Figure(f"{title}: {r['method']}", values, claims=claims))
    return measured(
        "proximal.photos",
        "Photographs, noise .1, 36 Kodak crops of 128 px",
        head="method",
        columns=[Column("PSNR, dB", "{db:.2f}"), Column("SSIM", "{ssim:.3f}")],
        figures=figures,
        source="run folder",
        note=note,
    )


def long_runs(runs: list[list[str]], note: str) -> FigureTable:
    """Guaranteed solvers run on: the converged answer beside the best iterate and the start."""
    figures = []
    for title, folder in runs:
        for r in read(Path(folder) / "convergence.csv"):
            if r["method"].removesuffix(_FROM_TV) not in _COLUMNS["theorem"]:
                continue
            start, best, end = (float(r[k]) for k in ("start PSNR", "best PSNR", "last PSNR"))
            solver = r["method"].removeprefix("LPN, ")
            figures.append(
                Figure(
                    f"{title}: {PROBLEMS[r['problem']][0]} ({solver})",
                    {
                        "start": start, "best": best, "at": int(r["at"]), "end": end,
                        "steps": int(r["iterations"]), "lost": round(best - end, 2),
                        "over_start": round(end - start, 2), "rise": float(r["largest rise"]),
                    },
                    claims=[at_most("lost", 0.3), at_least("over_start", 0), at_most("rise", 2e-6)],
                )
            )  # fmt: skip
    return measured(
        "proximal.long_runs",
        "Guaranteed solvers run to convergence: PSNR in dB",
        head="problem",
        columns=[
            Column("first image", "{start:.2f}"),
            Column("best iterate", "{best:.2f} (at {at})"),
            Column("converged", "{end:.2f} (after {steps})"),
            Column("lost", "{lost:.2f}"),
            Column("largest relative rise of the objective", "{rise:.0e}"),
        ],
        figures=figures,
        source="run folder",
        note=note,
    )


def read(path: Path) -> list[Row]:
    """Rows of a table that ``restore`` wrote."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    pair: dict[str, Any] = {
        "nargs": 2,
        "action": "append",
        "metavar": ("TITLE", "FOLDER"),
        "default": [],
    }
    parser.add_argument("--run", help="what the pictures are, and where the tables lie", **pair)
    parser.add_argument("--denoised", nargs=3, action="append", default=[],
                        metavar=("TITLE", "FOLDER", "DB"), help="and the least PSNR")  # fmt: skip
    parser.add_argument("--long-run", help="likewise, where --long was given", **pair)
    parser.add_argument("--note", default="", help="below the table of restorations")
    parser.add_argument("--denoised-note", default="", help="below the table of denoising")
    parser.add_argument("--long-note", default="", help="below the table of long runs")
    args = parser.parse_args()
    tables = []
    if args.run:
        tables.append(restoration(args.run, args.note))
    if args.denoised:
        tables.append(denoising(args.denoised, args.denoised_note))
    if args.long_run:
        tables.append(long_runs(args.long_run, args.long_note))
    for table in tables:
        for figure in table.figures:
            print(figure.what, dict(figure.values))
        publish(table.changed(command=_COMMANDS[table.id]))


if __name__ == "__main__":
    main()
