"""Measured figures as records: values, spread, what is claimed of them, and how to repeat them."""

from visionlab.registry import lazy_exports

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "Claim": "record",
        "Column": "record",
        "Figure": "record",
        "FigureTable": "record",
        "at_least": "record",
        "at_most": "record",
        "read_folder": "store",
        "write_tables": "store",
        "collect_into": "collector",
        "measured": "collector",
        "publish": "collector",
        "in_turn": "timing",
        "timings": "timing",
        "fill": "markdown",
        "markdown_table": "markdown",
        "write_page": "page",
    },
)
