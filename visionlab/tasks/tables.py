"""Plain-text tables for terminals and Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]


def format_table(rows: Sequence[Row], title: str = "") -> str:
    """Rows with the same keys as a Markdown table that also reads well in a terminal.

    Floats are shown with four significant digits, None as an empty cell.
    """
    if not rows:
        return f"{title}\n(no rows)" if title else "(no rows)"
    columns = list(dict.fromkeys(k for row in rows for k in row))
    cells = [[_text(row.get(c)) for c in columns] for row in rows]
    widths = [max(len(c), *(len(r[i]) for r in cells)) for i, c in enumerate(columns)]
    right = [all(_is_number(row.get(c)) for row in rows) for c in columns]
    lines = [
        _line(columns, widths, right),
        "|" + "|".join("-" * (w + 1) + (":" if r else "-") for w, r in zip(widths, right)) + "|",
        *(_line(r, widths, right) for r in cells),
    ]
    return "\n".join([title, "", *lines] if title else lines)


def _line(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    padded = [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(cells, widths, right)]
    return "| " + " | ".join(padded) + " |"


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
