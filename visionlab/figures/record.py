"""The record of a figure, and the table that figures of one measurement share.

Plain data, standard library only: a table is one JSON object, a figure one row of it. Whether a
claim holds is computed from the values and the limit, never stored by hand.
"""

import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

Value = float | int | str

SOURCES = {
    "measured": "published by the command",
    "run folder": "published by the command, from what trainings wrote",
    "transcribed": "copied by hand from what the command printed, in an earlier session",
}
"""Where the values of a table come from."""

_OPERATORS = {"<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt}
_WORDS = {"<=": "at most", ">=": "at least", "<": "below", ">": "above"}


@dataclass(frozen=True)
class Claim:
    """``value op limit``, for instance ``ratio <= 1.0``."""

    value: str
    op: str
    limit: float

    def __post_init__(self) -> None:
        if self.op not in _OPERATORS:
            raise ValueError(f"a claim's op is one of {', '.join(_OPERATORS)}, got {self.op!r}")

    def holds(self, values: Mapping[str, Value]) -> bool:
        """Compare the measured value with the limit.

        Raises:
            ValueError: there is no such number among the values.
        """
        number = values.get(self.value)
        if not isinstance(number, (int, float)):
            known = ", ".join(values) or "none"
            raise ValueError(f"a claim needs the number '{self.value}'; values: {known}")
        return bool(_OPERATORS[self.op](number, self.limit))

    def words(self) -> str:
        """``ratio at most 1``."""
        return f"{self.value.replace('_', ' ')} {_WORDS[self.op]} {self.limit:g}"


def at_most(value: str, limit: float) -> Claim:
    """The claim that a value is at most ``limit``."""
    return Claim(value, "<=", limit)


def at_least(value: str, limit: float) -> Claim:
    """The claim that a value is at least ``limit``."""
    return Claim(value, ">=", limit)


@dataclass(frozen=True)
class Figure:
    """One measured row."""

    what: str
    values: Mapping[str, Value]
    spread: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Value's name -> (least, greatest) of the repeats, or an interval that the note explains."""
    claims: Sequence[Claim] = ()

    @property
    def holds(self) -> bool | None:
        """Whether every claim holds; None without a claim."""
        return all(c.holds(self.values) for c in self.claims) if self.claims else None


@dataclass(frozen=True)
class Column:
    """One column: its heading, how a cell is written, and which cell is set in bold.

    ``cell`` is a format string over the values, such as ``"{ms:.2f} ({least:.2f})"``.
    """

    label: str
    cell: str
    best: str = ""
    """``"min VALUE"`` or ``"max VALUE"``: the rows with the best value are set in bold."""


@dataclass(frozen=True)
class FigureTable:
    """Figures of one measurement, with all that is needed to judge and to repeat it.

    ``id`` is ``part.name``; the part names the JSON file and the section of the page.
    """

    id: str
    title: str
    head: str
    """Heading of the first column, which holds each figure's ``what``."""
    columns: Sequence[Column]
    figures: Sequence[Figure]
    note: str = ""
    chart: str = ""
    """Name of the value that the results page shows as bars."""
    units: Mapping[str, str] = field(default_factory=dict)
    device: str = "cpu"
    source: str = "measured"
    """One of `SOURCES`."""
    command: str = ""
    machine: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    date: str = ""

    def __post_init__(self) -> None:
        if self.id.count(".") != 1 or not all(self.id.split(".")):
            raise ValueError(f"a table's id is 'part.name', got {self.id!r}")
        if self.device not in ("cpu", "gpu"):
            raise ValueError(f"{self.id}: device is cpu or gpu, got {self.device!r}")
        if self.source not in SOURCES:
            raise ValueError(f"{self.id}: source is one of {', '.join(SOURCES)}: {self.source!r}")
        rows = [f.what for f in self.figures]
        if len(set(rows)) != len(rows):
            raise ValueError(f"{self.id}: two rows have the same name")

    @property
    def part(self) -> str:
        """The pillar, first half of the id."""
        return self.id.partition(".")[0]

    def claims(self) -> Iterator[tuple[Figure, Claim, bool]]:
        """Every claim with its figure, and whether it holds."""
        for figure in self.figures:
            for claim in figure.claims:
                yield figure, claim, claim.holds(figure.values)

    def records(self) -> list[dict[str, Any]]:
        """Every figure alone, with the table's context repeated: what other programs read."""
        context = {
            k: getattr(self, k)
            for k in ("units", "device", "source", "command", "machine", "versions", "date")
        }
        return [
            {"id": f"{self.id}.{f.what}", "section": self.id, "what": f.what, "holds": f.holds}
            | _figure_to_json(f)
            | context
            for f in self.figures
        ]

    def changed(self, **fields: Any) -> "FigureTable":
        """A copy with other fields."""
        return replace(self, **fields)


def _figure_to_json(figure: Figure) -> dict[str, Any]:
    """Plain data, six digits; what is empty is left out."""
    out: dict[str, Any] = {
        "what": figure.what,
        "values": {k: _six_digits(v) for k, v in figure.values.items()},
    }
    if figure.spread:
        out["spread"] = {k: [_six_digits(x) for x in v] for k, v in figure.spread.items()}
    if figure.claims:
        out["claims"] = [{"value": c.value, "op": c.op, "limit": c.limit} for c in figure.claims]
    return out


def _six_digits(value: Value) -> Value:
    return float(f"{value:.6g}") if isinstance(value, float) else value


def table_to_json(table: FigureTable) -> dict[str, Any]:
    """Plain data; what is empty is left out."""
    simple = (
        "id",
        "title",
        "head",
        "note",
        "chart",
        "device",
        "source",
        "command",
        "machine",
        "date",
    )
    out: dict[str, Any] = {k: getattr(table, k) for k in simple if getattr(table, k)}
    for name in ("units", "versions"):
        if getattr(table, name):
            out[name] = dict(getattr(table, name))
    out["columns"] = [
        {"label": c.label, "cell": c.cell} | ({"best": c.best} if c.best else {})
        for c in table.columns
    ]
    out["figures"] = [_figure_to_json(f) for f in table.figures]
    return out


def table_from_json(data: Mapping[str, Any]) -> FigureTable:
    """The table again.

    Raises:
        ValueError: a field is missing or unknown.
    """
    fields = dict(data)
    try:
        fields["columns"] = [Column(**c) for c in fields["columns"]]
        fields["figures"] = [
            Figure(**(f | {"claims": [Claim(**c) for c in f.get("claims", ())]}))
            for f in fields["figures"]
        ]
        return FigureTable(**fields)
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a table of figures ({data.get('id', 'no id')}): {error}") from error
