"""Tables of figures as Markdown, and documents whose tables are filled from them.

A document holds ``<!-- figures: masking.draws -->`` and ``<!-- /figures -->``; what stands between
is made from the table of that id, so that a document cannot say what was not measured.
"""

import re
import string
from collections.abc import Mapping, Sequence
from typing import Any

from visionlab.figures.record import SOURCES, Column, Figure, FigureTable, Value
from visionlab.registry import suggest

_MARKED = re.compile(
    r"(?P<open><!-- figures: (?P<id>[\w.-]+)(?P<options>[^>]*?) -->\n).*?"
    r"(?P<close><!-- /figures -->)",
    re.DOTALL,
)


class _Cells(string.Formatter):
    """Numbers the way tables show them: three digits unless told, no zero before the point."""

    def format_field(self, value: Any, format_spec: str) -> str:
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            return str(value)
        if not format_spec:
            format_spec = (
                "," if isinstance(value, int) else "#.3g" if abs(value) < 999.5 else ",.0f"
            )
        text = format(value, format_spec).removesuffix(".")
        text = re.sub(r"e([+-])0?(\d)", lambda m: f"e{m[1].strip('+')}{m[2]}", text)
        return re.sub(r"^(-?)0\.(?=\d*[1-9])", r"\1.", text)


def cell_text(template: str, values: Mapping[str, Value]) -> str:
    """A cell's text; empty where one of its values was not measured."""
    names = [n for _, n, _, _ in string.Formatter().parse(template) if n]
    if any(values.get(n) is None for n in names):
        return ""
    return _Cells().vformat(template, (), values)


def number_in(template: str, name: str, value: Value) -> str:
    """One value alone, written as the cell writes it."""
    for _, field, spec, _ in string.Formatter().parse(template):
        if field == name:
            return _Cells().format_field(value, spec or "")
    return _Cells().format_field(value, "")


def rows_of(table: FigureTable) -> list[list[tuple[str, bool]]]:
    """Every cell's text and whether it is the best of its column, without the first column."""
    best = [_best(c, table.figures) for c in table.columns]
    return [
        [
            (cell_text(c.cell, f.values), b is not None and f.values.get(b[0]) == b[1])
            for c, b in zip(table.columns, best)
        ]
        for f in table.figures
    ]


def _best(column: Column, figures: Sequence[Figure]) -> tuple[str, float] | None:
    if not column.best:
        return None
    order, name = column.best.split()
    numbers = [v for f in figures if isinstance(v := f.values.get(name), (int, float))]
    return (name, {"min": min, "max": max}[order](numbers)) if len(numbers) > 1 else None


def markdown_table(table: FigureTable, *, note: bool = True, full: bool = False) -> str:
    """The table, the command that repeats it, and what must be known to read it.

    Args:
        table: the figures.
        note: the table's note and command below it.
        full: also machine, versions and date, and a last column that says what is claimed and
            whether it held.
    """
    columns = [c.label for c in table.columns] + (["claimed"] if full else [])
    lines = [f"| {table.head} | {' | '.join(columns)} |", "|" + "---|" * (len(columns) + 1)]
    for figure, cells in zip(table.figures, rows_of(table)):
        texts = [f"**{t}**" if bold and t else t for t, bold in cells]
        if full:
            texts.append("; ".join(_claim_words(figure)))
        lines.append(f"| {figure.what} | {' | '.join(texts)} |".replace("|  |", "| |"))
    if note:
        lines += ["", _provenance(table, full=full)]
    return "\n".join(lines).replace("|  |", "| |")


def _claim_words(figure: Figure) -> list[str]:
    """Each claim as ``ratio at most 1: holds``."""
    return [
        f"{c.words()}: {'holds' if c.holds(figure.values) else '**does not hold**'}"
        for c in figure.claims
    ]


def _provenance(table: FigureTable, *, full: bool) -> str:
    """One paragraph: what to beware of, how to repeat it, and in full on what it was taken."""
    parts = [table.note] if table.note else []
    if table.command:
        parts.append(f"`{table.command}`")
    versions = ", ".join(f"{k} {v}" for k, v in table.versions.items() if k != "python")
    taken = ", ".join(x for x in (table.machine, versions, table.date) if x)
    if full and taken:
        kept = "" if table.source == "measured" else f"; {SOURCES[table.source]}"
        parts.append(f"({taken}{kept})")
    return " ".join(parts)


def fill(text: str, tables: Mapping[str, FigureTable]) -> str:
    """The document with every marked table made anew.

    After the id, ``bare`` leaves the note and the command out.

    Raises:
        ValueError: a marker names no table, or is not closed.
    """
    if text.count("<!-- figures: ") != len(_MARKED.findall(text)):
        raise ValueError("a marker '<!-- figures: ID -->' has no '<!-- /figures -->'")

    def made(match: re.Match[str]) -> str:
        name = match["id"]
        if name not in tables:
            raise ValueError(f"no table of figures '{name}'. {suggest(name, tables)}")
        table = markdown_table(tables[name], note="bare" not in match["options"])
        return f"{match['open']}{table}\n{match['close']}"

    return _MARKED.sub(made, text)
