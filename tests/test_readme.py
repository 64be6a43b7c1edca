"""What the README and the guides say is true: snippets run, commands name what exists and keys
that fit, and every table is what figures/*.json gives."""

import json
import re
import shlex
from pathlib import Path

import pytest

from visionlab import config as configs
from visionlab.figures import documents, store
from visionlab.figures.page import read_captions

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "guides").glob("*.md"))]
TEXTS = {path.stem: path.read_text(encoding="utf-8") for path in DOCUMENTS}
BLOCKS = {name: re.findall(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
          for name, text in TEXTS.items()}  # fmt: skip
SNIPPETS = {name: [body for language, body in blocks if language == "python"]
            for name, blocks in BLOCKS.items()}  # fmt: skip


def commands():
    """Every command that a document shows, and every one that a figure says it was made with."""
    shown = "\n".join(b for blocks in BLOCKS.values() for kind, b in blocks if kind != "python")
    lines = shown.replace("\\\n", " ").splitlines()
    for text in TEXTS.values():
        lines += re.findall(r"`(python3? tools/[^`]+)`", text)
    for table in store.read_folder(ROOT / "figures").values():
        lines += table.command.split(" && ")
    return sorted({x.split("#")[0].strip() for x in lines if re.match(r"python3? tools/", x)})


@pytest.fixture(scope="module")
def names():
    """Snippets run in the reader's order; a later one may use the names of an earlier one."""
    spaces = {}
    return lambda document: spaces.setdefault(document, {"__name__": "__main__"})


@pytest.mark.parametrize(
    ("document", "number"), [(d, n) for d, found in SNIPPETS.items() for n in range(len(found))]
)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_snippet_runs(document, number, names, tmp_path, monkeypatch):
    snippet = SNIPPETS[document][number]
    if "import deepinv" in snippet:
        pytest.importorskip("deepinv", reason="the extra 'deepinv' is not installed")
    monkeypatch.chdir(tmp_path)
    exec(compile(snippet, f"{document}, snippet {number}", "exec"), names(document))


@pytest.mark.parametrize("command", commands())
def test_command_names_what_exists(command):
    _, script, *arguments = shlex.split(command)
    assert (ROOT / script).is_file(), script
    if script == "tools/benchmark.py" and arguments and not arguments[0].startswith("-"):
        section = arguments[0]
        assert section == "SECTION" or (ROOT / f"tools/benchmark_{section}.py").is_file(), section
    named = [a for a in arguments if a.startswith("configs/") and "NAME" not in a]
    for config in named:
        assert (ROOT / config).is_file(), config
        overrides = [a for a in arguments if "=" in a and not a.startswith("-")]
        configs.check(configs.read(ROOT / config, overrides), config)


@pytest.mark.parametrize("path", documents.made(ROOT), ids=lambda p: p.name)
def test_tables_are_those_of_the_figures(path):
    """After a change of figures/*.json: python tools/benchmark.py --readme."""
    assert path.read_text(encoding="utf-8") == documents.made(ROOT)[path]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: p.stem)
def test_tables_of_numbers_are_made_from_figures(document):
    """A number in a hand-written table would be a claim without a record."""
    text = re.sub(r"<!-- figures: .*?<!-- /figures -->", "", TEXTS[document.stem], flags=re.DOTALL)
    bold = re.findall(r"^\|.*\*\*[\d.,]+\s*(?:x|ms|%|dB)?\*\*.*$", text, re.MULTILINE)
    assert not bold, f"measured by hand: {bold}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: p.stem)
def test_document_is_whole(document):
    text = TEXTS[document.stem]
    assert not re.search(r"@@|%%\w|TODO|XXX", text)
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert target.startswith("https://") or (document.parent / target).exists(), target
    headings = re.findall(r"^##+ .*$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.M)
    assert len(headings) == len(set(headings)), "a heading stands twice"


def test_every_picture_has_a_caption_and_a_part():
    captions = {picture.path.name: picture for picture in read_captions(ROOT / "pictures")}
    assert set(captions) == {p.name for p in (ROOT / "pictures").glob("*.png")}
    assert {p.part for p in captions.values()} <= set(documents.PARTS)
    assert all(len(p.alt) > 20 for p in captions.values())


def test_figures_name_no_machine_paths():
    for path in (ROOT / "figures").iterdir():
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"(?<![\w.])/(?:work|tmp|home|root)/", text), path
    for path in (ROOT / "figures").glob("*.json"):
        json.loads(path.read_text(encoding="utf-8"))


def test_every_config_stands_in_the_data_sheet():
    sheet = (ROOT / "datasets.md").read_text(encoding="utf-8")
    patterns = re.findall(r"`(configs/[^`]+\.yaml)`", sheet)
    covered = {p for pattern in patterns for p in ROOT.glob(pattern)}
    configs_with_data = {
        p for p in (ROOT / "configs").rglob("*.yaml")
        if p.name != "base.yaml" and configs.read(p).get("data")
    }  # fmt: skip
    missing = sorted(str(p.relative_to(ROOT)) for p in configs_with_data - covered)
    assert not missing, f"datasets.md does not say what these read: {missing}"
