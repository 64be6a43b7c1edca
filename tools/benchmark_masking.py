"""Figures of the masks: cost of drawing them beside the official ways, and their statistics.

    python tools/benchmark.py masking draws
    python tools/benchmark.py masking colors

All arms of a table run in turn in the same process; times are CPU time, ratios are of medians.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from visionlab.figures import Column, Figure, FigureTable, at_most, in_turn, measured, publish
from visionlab.figures.timing import MILLISECONDS, UNITS, show, timings
from visionlab.masking import Mask, create_mask

RAND, BANK = "rand + two argsorts (MAE)", "noise bank, crop + two argsorts (ColorMAE)"


def main() -> None:
    """Parse, run one table, print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", choices=("draws", "colors"))
    parser.add_argument("--repetitions", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.table == "colors":
        publish(colors_table())
    else:
        figures = timings(in_turn(drawing_arms(), args.repetitions), base=RAND)
        show(figures)
        publish(draws_table(figures))


def drawing_arms() -> dict[str, Callable[[], object]]:
    """256 masks of 14 x 14 at ratio .75 with ids_keep, ids_restore and mask."""
    bank = torch.randn(3072, 64, 64)

    def shuffled(scores: Tensor) -> None:
        order = torch.argsort(scores, dim=1)
        restore = torch.argsort(order, dim=1)
        mask = torch.ones(256, 196)
        mask[:, :49] = 0
        torch.gather(mask, 1, restore)

    def official_bank() -> None:
        # the published generator crops, flips and scales the whole bank, then uses the first 256
        row, column = (int(torch.randint(51, ())) for _ in range(2))
        window = bank[:, row : row + 14, column : column + 14].flip(-1)
        window = window / window.amax((1, 2), keepdim=True)
        shuffled(-window[:256].flatten(1))

    arms: dict[str, Callable[[], object]] = {
        RAND: lambda: shuffled(torch.rand(256, 196)),
        BANK: official_bank,
    }
    for name in ("random", "green", "red", "blue", "purple", "block", "grid", "multiblock"):
        arms[name] = _draw(name)
    arms["green, by sample index"] = _draw("green", by_index=True)
    return arms


def _draw(name: str, *, by_index: bool = False) -> Callable[[], object]:
    mask, index = create_mask(name, grid=(14, 14)), torch.arange(256) if by_index else None
    step = iter(range(10**9))

    def draw() -> None:
        masks = mask(256, key=(0, 0, next(step)), index=index)
        _ = masks.ids_keep, masks.ids_restore, masks.mask

    return draw


def draws_table(figures: list[Figure]) -> FigureTable:
    """Drawing masks, beside the official ways."""
    bank = next(f for f in figures if f.what == BANK).values["ms"]
    claims = [at_most("ratio", 1.0), at_most("bank_ratio", 0.5)]
    figures = [
        replace(
            f,
            values={**f.values, "bank_ratio": float(f.values["ms"]) / float(bank)},
            claims=claims if f.what in ("random", "green", "red", "blue", "purple") else (),
        )
        for f in figures
    ]
    return measured(
        "masking.draws",
        "Drawing 256 masks of 14x14 with ids_keep, ids_restore and mask",
        head="256 masks of 14x14",
        columns=[
            MILLISECONDS,
            Column("this / MAE's", "{ratio:.2f}x"),
            Column("this / noise bank", "{bank_ratio:.2f}x"),
        ],
        figures=figures,
        chart="ms",
        units={**UNITS, "bank_ratio": "of medians"},
    )


def colors_table(count: int = 6000) -> FigureTable:
    """How often visible patches touch, beside the one mask that the paper shows per colour."""
    shown = {"red": 0.779, "green": 0.519, "blue": 0.127, "purple": 0.010}
    figures = []
    for name in ("white", "red", "green", "blue", "purple"):
        rates = {b: touching(create_mask(name, (14, 14), boundary=b), count)
                 for b in ("plane", "torus")}  # fmt: skip
        values = {"plane": float(rates["plane"].mean()), "torus": float(rates["torus"].mean()),
                  "deviation": float(rates["plane"].std())}  # fmt: skip
        claims = []
        if name in shown:
            values["paper"] = shown[name]
            values["off"] = abs(values["plane"] - shown[name]) / values["deviation"]
            claims = [at_most("off", 1.5)]
        print(name, " ".join(f"{k} {v:.3f}" for k, v in values.items()))
        figures.append(Figure(name, values, claims=claims))
    return measured(
        "masking.colors",
        "How often visible patches touch: pairs / (2 x visible), 14x14, ratio .75",
        head="colour",
        columns=[
            Column("P of the paper's one mask", "{paper:.3f}"),
            Column("P here, plane / torus", "{plane:.3f} / {torus:.3f}"),
            Column("deviation of one mask", "{deviation:.3f}"),
            Column("off by, in deviations", "{off:.1f}"),
        ],
        figures=figures,
        note=f"{count:,} masks a colour.",
    )


def touching(mask: Mask, count: int) -> Tensor:
    """Share of touching visible patches of each of ``count`` masks."""
    shown = mask(count, key=(9,)).visible.double()
    pairs = (shown[:, 1:] * shown[:, :-1]).sum((1, 2))
    pairs += (shown[:, :, 1:] * shown[:, :, :-1]).sum((1, 2))
    return pairs / (2 * shown[0].sum())


if __name__ == "__main__":
    main()
