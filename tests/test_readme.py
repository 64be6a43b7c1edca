"""What the README says is true: snippets run, commands name files that exist and keys that fit."""

import re
import shlex
from pathlib import Path

import pytest

from visionlab import config as configs

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
SNIPPETS = [body for language, body in BLOCKS if language == "python"]
SHOWN = "\n".join(body for language, body in BLOCKS if language in ("", "bash", "sh"))
LINES = SHOWN.replace("\\\n", " ").splitlines() + re.findall(r"`(python3? tools/[^`]+)`", TEXT)
COMMANDS = sorted({x.split("#")[0].strip() for x in LINES if re.match(r"python3? tools/", x)})


@pytest.fixture(scope="module")
def names():
    """Snippets run in the reader's order; a later one may use the names of an earlier one."""
    return {"__name__": "__main__"}


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_snippet_runs(number, names, tmp_path, monkeypatch):
    if "import deepinv" in SNIPPETS[number]:
        pytest.importorskip("deepinv", reason="the extra 'deepinv' is not installed")
    monkeypatch.chdir(tmp_path)
    exec(compile(SNIPPETS[number], f"README snippet {number}", "exec"), names)


@pytest.mark.parametrize("command", COMMANDS)
def test_command_names_what_exists(command):
    _, script, *arguments = shlex.split(command)
    assert (ROOT / script).is_file(), script
    named = [a for a in arguments if a.startswith("configs/") and "NAME" not in a]
    for config in named:
        assert (ROOT / config).is_file(), config
        overrides = [a for a in arguments if "=" in a and not a.startswith("-")]
        configs.check(configs.read(ROOT / config, overrides), config)


def test_no_placeholder_is_left():
    assert not re.search(r"@@|%%\w|TODO|XXX", TEXT)


def test_pictures_exist():
    for picture in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", TEXT):
        assert (ROOT / picture).is_file(), picture


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
