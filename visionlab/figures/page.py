"""The results page: pictures and tables of every part in one static HTML file.

No script, no server, no network: styles are in the file and pictures are embedded, or lie beside
it. Readable on a phone and on a desktop, in light and in dark, and by a screen reader.
"""

import base64
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from visionlab.atomic import write_text
from visionlab.figures import markdown
from visionlab.figures.inline import inline
from visionlab.figures.parts import NO_GPU, PARTS, in_order
from visionlab.figures.record import SOURCES, Figure, FigureTable

_STYLE = Path(__file__).with_name("page.css")
_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".svg": "image/svg+xml"}


@dataclass(frozen=True)
class Picture:
    """A picture of the page: where it lies, what it shows, and which part it belongs to."""

    path: Path
    alt: str
    part: str


def write_page(
    folder: str | Path,
    tables: Mapping[str, FigureTable],
    *,
    pictures: Path,
    runs: Iterable[Path] = (),
) -> Path:
    """Write ``folder/index.html`` with everything embedded; returns its path.

    Args:
        folder: made if need be.
        tables: figures by id.
        pictures: folder with pictures and ``captions.json``.
        runs: run folders whose pictures and results are shown too.
    """
    path = Path(folder) / "index.html"
    write_text(page_text(tables, pictures=pictures, runs=runs), path)
    return path


def page_text(
    tables: Mapping[str, FigureTable],
    *,
    pictures: Path,
    runs: Iterable[Path] = (),
    relative_to: Path | None = None,
) -> str:
    """The page; pictures are embedded, or linked relative to a folder.

    Raises:
        FileNotFoundError: a run folder is not there.
    """
    shown = read_captions(pictures)
    ordered = in_order(tables)
    parts = [p for p in PARTS if any(t.part == p for t in ordered.values())]
    parts += sorted({t.part for t in ordered.values()} - set(parts))
    runs = list(runs)
    body = [_header(ordered, parts, runs)]
    for part in parts:
        own = [t for t in ordered.values() if t.part == part]
        body.append(f'<section id="{escape(part)}">\n<h2>{escape(PARTS.get(part, part))}</h2>')
        body += [_picture(p, relative_to) for p in shown if p.part == part]
        body += [_table(t) for t in own]
        body.append("</section>")
    body += [_run(Path(r), relative_to) for r in runs]
    style = _STYLE.read_text(encoding="utf-8")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
        f"<title>visionlab: results</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + "\n</main>\n</body>\n</html>\n"
    )


def read_captions(folder: Path) -> list[Picture]:
    """Pictures that ``captions.json`` names: ``{"file.png": {"part": ..., "alt": ...}}``.

    Raises:
        FileNotFoundError: a named picture, or the list, is not there.
    """
    captions = json.loads((folder / "captions.json").read_text(encoding="utf-8"))
    found = [Picture(folder / name, c["alt"], c["part"]) for name, c in captions.items()]
    for picture in found:
        if not picture.path.is_file():
            raise FileNotFoundError(f"captions.json names {picture.path}, which is not there")
    return found


def _header(tables: Mapping[str, FigureTable], parts: Sequence[str], runs: Sequence[Path]) -> str:
    held = [holds for t in tables.values() for _, _, holds in t.claims()]
    count = sum(len(t.figures) for t in tables.values())
    links = [(p, PARTS.get(p, p)) for p in parts] + [(_anchor(r), f"Run {r.name}") for r in runs]
    items = "".join(f'<li><a href="#{escape(a)}">{escape(t)}</a></li>' for a, t in links)
    gpu = "" if any(t.device == "gpu" for t in tables.values()) else f"<p>{inline(NO_GPU)}</p>\n"
    return (
        "<header>\n<h1>visionlab: results</h1>\n<p>Masks with a colour, learned proximal networks, "
        "a modular mixture of experts, and camera rotation by Hough voting.</p>\n"
        f"<p>{count} measured rows in {len(tables)} tables; {sum(held)} of {len(held)} claims held "
        "where they were measured. Each table names its command, machine and date.</p>\n"
        f'{gpu}<nav aria-label="Parts"><ul>{items}</ul></nav>\n</header>\n<main>'
    )


def _picture(picture: Picture, relative_to: Path | None) -> str:
    alt = escape(picture.alt, quote=True)
    return (
        f'<figure><img src="{_source(picture.path, relative_to)}" alt="{alt}">'
        f"<figcaption>{escape(picture.alt)}</figcaption></figure>"
    )


def _source(path: Path, relative_to: Path | None) -> str:
    if relative_to is not None:
        return escape(Path(os.path.relpath(path, relative_to)).as_posix(), quote=True)
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    return f"data:{_TYPES[path.suffix.lower()]};base64,{data}"


def _table(table: FigureTable) -> str:
    claims = any(f.claims for f in table.figures)
    heads = [table.head, *(c.label for c in table.columns), *(["claimed"] if claims else [])]
    lines = [
        f"<h3>{inline(table.title)}</h3>",
        _bars(table),
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(table.title, True)}">',
        f"<table>\n<caption>{inline(table.title)}</caption>\n<thead><tr>",
        "".join(f'<th scope="col">{inline(h)}</th>' for h in heads) + "</tr></thead>\n<tbody>",
    ]
    for figure, cells in zip(table.figures, markdown.rows_of(table)):
        row = [f'<th scope="row">{inline(figure.what)}</th>']
        row += [f"<td>{'<b>' * b}{inline(t)}{'</b>' * b}</td>" for t, b in cells]
        row += [f'<td class="claims">{_claims(figure)}</td>'] if claims else []
        lines.append(f"<tr>{''.join(row)}</tr>")
    lines += ["</tbody>\n</table>\n</div>", _provenance(table)]
    return "\n".join(line for line in lines if line)


def _claims(figure: Figure) -> str:
    out = []
    for claim in figure.claims:
        holds = claim.holds(figure.values)
        mark, word = ("yes", "holds") if holds else ("no", "does not hold")
        out.append(f'<span class="{mark}">{escape(claim.words())}: {word}</span>')
    return "<br>".join(out)


def _bars(table: FigureTable) -> str:
    """Bars of the table's ``chart`` value, each with its number beside, so colour tells nothing."""
    known = [(f.what, v) for f in table.figures
             if isinstance(v := f.values.get(table.chart), (int, float))]  # fmt: skip
    largest = max((v for _, v in known), default=0)
    if largest <= 0:
        return ""
    cell = next((c.cell for c in table.columns if f"{{{table.chart}" in c.cell), "")
    unit = table.units.get(table.chart, table.chart)
    rows = []
    for what, value in known:
        text = markdown.number_in(cell, table.chart, value)
        width = f"{100 * max(value, 0) / largest:.1f}%"
        rows.append(
            f"<li><span>{inline(what)}</span><span class=track><i style=width:{width}></i></span>"
            f"<span>{text}</span></li>"
        )
    label = escape(f"{table.chart.replace('_', ' ')} ({unit})")
    return f'<p class="axis">{label}</p><ul class="bars">{"".join(rows)}</ul>'


def _provenance(table: FigureTable) -> str:
    parts = [f"<p>{inline(table.note)}</p>"] if table.note else []
    if table.command:
        parts.append(f"<p><code>{escape(table.command)}</code></p>")
    versions = ", ".join(f"{k} {v}" for k, v in table.versions.items())
    taken = ", ".join(x for x in (table.machine, versions, table.date) if x)
    source = escape(SOURCES[table.source].capitalize())
    parts.append(f"<p>{escape(table.device.upper())}. {escape(taken)}. {source}.</p>")
    return f'<div class="from">{"".join(parts)}</div>'


def _anchor(run: Path) -> str:
    return f"run-{run.name}"


def _run(run: Path, relative_to: Path | None) -> str:
    """Pictures and results.json of a run folder."""
    if not run.is_dir():
        raise FileNotFoundError(f"no run folder at {run}")
    lines = [f'<section id="{escape(_anchor(run))}">\n<h2>Run {escape(run.name)}</h2>']
    results = run / "results.json"
    if results.is_file():
        text = json.dumps(json.loads(results.read_text(encoding="utf-8")), indent=1)
        lines.append(
            "<details><summary>results.json</summary>"
            f'<pre tabindex="0">{escape(text)}</pre></details>'
        )
    for path in sorted(p for p in run.rglob("*") if p.suffix.lower() in _TYPES):
        alt = f"{path.stem.replace('_', ' ')} of run {run.name}"
        lines.append(_picture(Picture(path, alt, ""), relative_to))
    return "\n".join([*lines, "</section>"])
