"""Tables of figures on disk: a folder with one JSON file per part."""

import json
from collections.abc import Iterable
from pathlib import Path

from visionlab.atomic import write_text
from visionlab.figures.record import FigureTable, table_from_json, table_to_json


def read_file(path: str | Path) -> list[FigureTable]:
    """The tables of one file, in its order.

    Raises:
        ValueError: it holds something else.
    """
    path = Path(path)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(data, dict) or not isinstance(data.get("tables"), list):
        raise ValueError(f"{path} is no file of figures: it has no list 'tables'")
    return [table_from_json(t) for t in data["tables"]]


def read_folder(folder: str | Path) -> dict[str, FigureTable]:
    """Every table of a folder by its id.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: a file holds something else, or two hold the same table.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder of figures at {folder}")
    tables: dict[str, FigureTable] = {}
    for path in sorted(folder.glob("*.json")):
        for table in read_file(path):
            if table.id in tables:
                raise ValueError(f"{path}: the table {table.id} is there twice")
            tables[table.id] = table
    return tables


def write_tables(folder: str | Path, tables: Iterable[FigureTable]) -> list[Path]:
    """Put tables into a folder: each replaces the one of its id, or comes last in its file."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    parts: dict[str, dict[str, FigureTable]] = {}
    for table in tables:
        if table.part not in parts:
            path = folder / f"{table.part}.json"
            parts[table.part] = {t.id: t for t in read_file(path)} if path.is_file() else {}
        parts[table.part][table.id] = table
    return [_write(folder / f"{part}.json", found.values()) for part, found in parts.items()]


def _write(path: Path, tables: Iterable[FigureTable]) -> Path:
    write_text(_dump([table_to_json(t) for t in tables]), path)
    return path


def _dump(tables: list[dict[str, object]]) -> str:
    """JSON with a line per row, so that a diff shows which figure changed."""
    blocks = []
    for table in tables:
        lines = [f"  {json.dumps(k)}: {json.dumps(v, ensure_ascii=False)}"
                 for k, v in table.items() if k not in ("columns", "figures")]  # fmt: skip
        for key in ("columns", "figures"):
            rows: list[object] = table[key]  # type: ignore[assignment]
            body = ",\n".join(f"   {json.dumps(row, ensure_ascii=False)}" for row in rows)
            lines.append(f'  "{key}": [\n{body}\n  ]')
        blocks.append(" {\n" + ",\n".join(lines) + "\n }")
    return '{"tables": [\n' + ",\n".join(blocks) + "\n]}\n"
