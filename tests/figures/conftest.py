"""A small table of figures."""

import pytest

from visionlab.figures import Column, Figure, FigureTable, at_most


def build(**changes):
    fields = {
        "id": "part.name",
        "title": "A table",
        "head": "way",
        "columns": [Column("ms", "{ms:.1f}", best="min ms")],
        "figures": [
            Figure("ours", {"ms": 1.0, "ratio": 0.5}, {"ms": [0.9, 1.2]}, [at_most("ratio", 0.6)]),
            Figure("theirs", {"ms": 2.0, "ratio": 1.0}),
        ],
        "command": "python tools/benchmark.py part",
        "machine": "a machine",
        "versions": {"torch": "2.14"},
        "date": "2026-01-01",
    }
    return FigureTable(**(fields | changes))


@pytest.fixture
def make():
    """``make(**changes)``: a table of two figures, with other fields."""
    return build
