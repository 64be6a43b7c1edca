"""Documents follow the figures, and are written only where they differ."""

import pytest

from visionlab.figures import Figure, documents, write_tables


@pytest.fixture
def root(make, tmp_path):
    for folder in ("guides", "pictures", "figures"):
        (tmp_path / folder).mkdir()
    filled = "# A\n<!-- figures: part.name bare -->\n<!-- /figures -->\n"
    (tmp_path / "README.md").write_text(filled)
    (tmp_path / "guides" / "part.md").write_text(filled)
    (tmp_path / "guides" / "plain.md").write_text("no figures here\n")
    (tmp_path / "pictures" / "captions.json").write_text("{}")
    write_tables(tmp_path / "figures", [make(device="cpu")])
    return tmp_path


def test_every_document_that_shows_figures_is_made(root):
    written = {p.relative_to(root).as_posix() for p in documents.refresh(root)}
    assert written == {"README.md", "guides/part.md", "figures/README.md", "figures/index.html"}
    assert "| ours | **1.0** |" in (root / "README.md").read_text()
    assert documents.refresh(root) == []


def test_a_new_figure_changes_what_shows_it(root, make):
    documents.refresh(root)
    figures = [Figure("ours", {"ms": 0.5}), Figure("theirs", {"ms": 2.0})]
    write_tables(root / "figures", [make(device="cpu", figures=figures)])
    assert len(documents.refresh(root)) == 4
    assert "| ours | **.5** |" in (root / "guides" / "part.md").read_text()


def test_all_tables_count_the_claims_that_hold(root, make):
    documents.refresh(root)
    text = (root / "figures" / "README.md").read_text()
    assert "1 of 1 claims held where they were measured." in text
    assert "No figure was measured on a GPU" in text
    write_tables(root / "figures", [make(device="gpu")])
    documents.refresh(root)
    assert "No figure was measured on a GPU" not in (root / "figures" / "README.md").read_text()
