"""The page is whole without a network, and fits a phone and a desktop in headless Chromium."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from visionlab.figures import Figure, read_folder, write_page
from visionlab.figures.page import page_text, read_captions

ROOT = Path(__file__).resolve().parents[2]
VOID = {"meta", "link", "img", "br"}


class Outline(HTMLParser):
    """Elements with their attributes; complains about what is not closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.found = [], []
        self.feed(text)
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag

    def of(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture(scope="module")
def real():
    return page_text(read_folder(ROOT / "figures"), pictures=ROOT / "pictures")


def test_the_page_asks_for_nothing(real):
    page = Outline(real)
    assert not page.of("script")
    assert [x["href"] for x in page.of("link")] == ["data:,"]
    assert all(x["src"].startswith("data:image/") for x in page.of("img"))
    assert "url(" not in real
    assert "@import" not in real


def test_the_page_can_be_read_aloud(real):
    page = Outline(real)
    assert page.of("html") == [{"lang": "en"}]
    assert len(page.of("h1")) == 1
    assert all(len(x["alt"]) > 20 for x in page.of("img"))
    assert len(page.of("caption")) == len(page.of("table")) == len(read_folder(ROOT / "figures"))
    assert {x["scope"] for x in page.of("th")} == {"col", "row"}
    ids = [x["id"] for _, x in page.found if "id" in x]
    assert len(ids) == len(set(ids))
    assert {x["href"][1:] for x in page.of("a") if x["href"].startswith("#")} <= set(ids)


def test_text_of_figures_is_escaped(make, tmp_path):
    tables = {"part.name": make(figures=[Figure("<script>alert(1)</script>", {"ms": 1.0})])}
    text = page_text(tables, pictures=ROOT / "pictures")
    assert "<script" not in text


def test_bars_are_as_long_as_their_numbers(make, tmp_path):
    text = page_text({"part.name": make(chart="ms")}, pictures=ROOT / "pictures")
    assert re.findall(r"width:([\d.]+)%", text) == ["50.0", "100.0"]
    assert "<span>1.0</span>" in text
    assert "does not hold" not in text


def test_run_folders_are_shown(tmp_path):
    run = tmp_path / "my_run"
    run.mkdir()
    (run / "results.json").write_text(json.dumps({"accuracy": "<.5"}))
    shutil.copy(ROOT / "pictures/reconstruction.png", run / "loss_curve.png")
    path = write_page(tmp_path / "page", {}, pictures=ROOT / "pictures", runs=[run])
    text = path.read_text()
    assert 'alt="loss curve of run my_run"' in text
    assert "&lt;.5" in text
    with pytest.raises(FileNotFoundError, match="no run folder at"):
        write_page(tmp_path, {}, pictures=ROOT / "pictures", runs=[tmp_path / "none"])


def test_a_caption_without_its_picture_is_an_error(tmp_path):
    (tmp_path / "captions.json").write_text('{"gone.png": {"alt": "a", "part": "moe"}}')
    with pytest.raises(FileNotFoundError, match=r"gone.png, which is not there"):
        read_captions(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_the_screen(width, tmp_path):
    """A frame of that width in Chromium: nothing hangs over, every picture is drawn."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
    if browser is None:
        pytest.skip("no Chromium here (Debian: apt-get install chromium)")
    frame = tmp_path / "frame.html"
    page = write_page(tmp_path, read_folder(ROOT / "figures"), pictures=ROOT / "pictures")
    # a window is never narrower than 500 px, so the width is that of a frame within
    frame.write_text(
        f'<iframe src="{page.name}" style="width:{width}px;height:900px;border:0"></iframe>'
        "<pre></pre><script>onload = () => { const d = document.querySelector('iframe')"
        ".contentDocument; const images = [...d.images];"
        "document.querySelector('pre').textContent = JSON.stringify({"
        "inner: d.documentElement.clientWidth, scroll: d.documentElement.scrollWidth,"
        "broken: images.filter(i => !i.naturalWidth).length, images: images.length,"
        "requests: d.defaultView.performance.getEntriesByType('resource')"
        ".filter(r => !r.name.startsWith('data:')).length}) }</script>"
    )
    command = [browser, "--headless=new", "--no-sandbox", "--disable-gpu",
               "--allow-file-access-from-files", f"--user-data-dir={tmp_path / 'profile'}",
               "--hide-scrollbars", "--virtual-time-budget=10000",
               "--dump-dom", frame.as_uri()]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=True)
    seen = json.loads(re.search(r"<pre>(.+?)</pre>", done.stdout)[1])
    assert seen["inner"] == width
    assert seen["scroll"] <= width
    assert seen["images"] == len(read_captions(ROOT / "pictures"))
    assert (seen["broken"], seen["requests"]) == (0, 0)
