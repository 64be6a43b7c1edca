"""The parts of the project in the order in which the README and the results page tell of them."""

from collections.abc import Mapping

from visionlab.figures.record import FigureTable

PARTS = {
    "masking": "Masks with a colour, masked autoencoders",
    "proximal": "Learned proximal networks",
    "moe": "Mixture of experts, several tasks",
    "rotation": "Camera rotation",
    "data": "Data at scale",
    "scale": "Several processes and machines",
    "faults": "Reliability",
    "start": "Time until something happens",
}
"""Part of a table's id -> heading, in the order of the README."""


NO_GPU = "No figure was measured on a GPU: `python tools/benchmark.py --gpu` needs a CUDA device."


def in_order(tables: Mapping[str, FigureTable]) -> dict[str, FigureTable]:
    """Tables by part, in the order of the README; parts without a heading come last."""
    parts = list(PARTS)

    def place(table: FigureTable) -> int:
        return parts.index(table.part) if table.part in parts else len(parts)

    return {t.id: t for t in sorted(tables.values(), key=place)}
