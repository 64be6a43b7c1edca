"""The documents that are made from the figures: README, guides, all tables, results page."""

from collections.abc import Mapping
from pathlib import Path

from visionlab.atomic import write_text
from visionlab.figures import markdown, page, store
from visionlab.figures.parts import NO_GPU, PARTS, in_order
from visionlab.figures.record import FigureTable


def made(root: Path) -> dict[Path, str]:
    """Path -> text of each document as the figures of ``root/figures`` make it."""
    tables = in_order(store.read_folder(root / "figures"))
    written = [root / "README.md", *sorted((root / "guides").glob("*.md"))]
    return {
        **{p: markdown.fill(p.read_text(encoding="utf-8"), tables) for p in written},
        root / "figures" / "README.md": _all_tables(tables),
        root / "figures" / "index.html": page.page_text(
            tables, pictures=root / "pictures", relative_to=root / "figures"
        ),
    }


def refresh(root: Path) -> list[Path]:
    """Write the documents that differ from what the figures give; returns these."""
    changed = []
    for path, text in made(root).items():
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            write_text(text, path)
            changed.append(path)
    return changed


def _all_tables(tables: Mapping[str, FigureTable]) -> str:
    """Every table with its claims, command, machine and date, as one Markdown document."""
    claims = [holds for t in tables.values() for _, _, holds in t.claims()]
    lines = [
        "# All figures", "",
        "Made by `python tools/benchmark.py --readme` from the JSON files beside it. The same as a",
        "page with pictures: [index.html](index.html). Each table names the command that repeats",
        "it; `python tools/benchmark.py --quick` repeats those that need no training.", "",
        f"{sum(claims)} of {len(claims)} claims held where they were measured.",
    ]  # fmt: skip
    if all(t.device == "cpu" for t in tables.values()):
        lines.append(NO_GPU)
    part = ""
    for table in tables.values():
        if table.part != part:
            part = table.part
            lines += ["", f"## {PARTS.get(part, part)}"]
        lines += ["", f"### {table.title}", "", markdown.markdown_table(table, full=True)]
    return "\n".join(lines) + "\n"
