"""Tables as people read them."""

import pytest

from visionlab.figures import Column, Figure, fill, markdown_table
from visionlab.figures.markdown import cell_text


@pytest.mark.parametrize(
    ("template", "value", "text"),
    [
        ("{x}", 0.51234, ".512"),
        ("{x}", 1.0, "1.00"),
        ("{x}", 862.4, "862"),
        ("{x}", 1862.4, "1,862"),
        ("{x}", 297866, "297,866"),
        ("{x:.2f}x", 0.5, ".50x"),
        ("{x:.1f}", -0.25, "-.2"),
        ("{x:.1f}", 0.0, "0.0"),
        ("{x:.0e}", 4e-05, "4e-5"),
        ("{x} ms", "three", "three ms"),
        ("{y}", 1.0, ""),
    ],
)
def test_numbers_are_written_as_tables_show_them(template, value, text):
    assert cell_text(template, {"x": value}) == text


def test_the_best_of_a_column_is_bold(make):
    lines = markdown_table(make(), note=False).splitlines()
    assert lines == ["| way | ms |", "|---|---|", "| ours | **1.0** |", "| theirs | 2.0 |"]
    alone = make(figures=[Figure("ours", {"ms": 1.0})])
    assert "**" not in markdown_table(alone, note=False)


def test_in_full_a_table_says_what_is_claimed_and_where_it_was_taken(make):
    text = markdown_table(make(note="Beware."), full=True)
    assert "ratio at most 0.6: holds" in text
    assert text.endswith(
        "Beware. `python tools/benchmark.py part` (a machine, torch 2.14, 2026-01-01)"
    )
    low = make(figures=[Figure("a", {"ms": 1.0, "ratio": 2.0}, claims=make().figures[0].claims)])
    assert "**does not hold**" in markdown_table(low, full=True)


def test_a_document_is_filled_from_the_figures(make):
    text = "Before\n<!-- figures: part.name bare -->\nold\n<!-- /figures -->\nafter\n"
    filled = fill(text, {"part.name": make()})
    assert "old" not in filled
    assert "| ours | **1.0** |\n| theirs | 2.0 |\n<!-- /figures -->\nafter\n" in filled
    assert fill(filled, {"part.name": make()}) == filled
    faster = make(figures=[Figure("ours", {"ms": 0.5}), Figure("theirs", {"ms": 2.0})])
    assert fill(filled, {"part.name": faster}) != filled


def test_bad_markers_get_a_sentence(make):
    with pytest.raises(ValueError, match=r"no table of figures 'part.nam'. Did you mean"):
        fill("<!-- figures: part.nam -->\n<!-- /figures -->", {"part.name": make()})
    with pytest.raises(ValueError, match="has no '<!-- /figures -->'"):
        fill("<!-- figures: part.name -->\n", {"part.name": make()})


def test_a_cell_without_its_value_is_empty(make):
    columns = [Column("both", "{ms} / {other}")]
    assert markdown_table(make(columns=columns), note=False).splitlines()[2] == "| ours | |"
