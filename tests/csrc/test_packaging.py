"""The kernel text reaches whoever installs: from a checkout (editable) and from a wheel."""

import json
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from visionlab.rotation import native

ROOT = Path(__file__).parents[2]


def test_every_package_is_listed():
    listed = set(
        tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    )
    folders = {path.parent.relative_to(ROOT) for path in ROOT.glob("visionlab/**/*.py")}
    found = {".".join(folder.parts) for folder in folders}
    assert listed == found | {"visionlab.csrc"}


def test_a_checkout_uses_its_own_text():
    assert native.source_folder() == ROOT / "csrc"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    sources = folder / "sources"  # a copy, so that no build/ or egg-info appears in the checkout
    listed = subprocess.run(
        ["git", "ls-files", "-zco", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    for name in listed.stdout.decode().rstrip("\0").split("\0"):
        if (ROOT / name).is_file() and not name.startswith("tests/"):
            (sources / name).parent.mkdir(parents=True, exist_ok=True)
            (sources / name).write_bytes((ROOT / name).read_bytes())
    build = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(folder)], cwd=sources, check=True)
    return next(folder.glob("*.whl"))


@pytest.mark.slow
def test_the_wheel_holds_the_text_and_finds_it(wheel, tmp_path):
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    assert (tmp_path / "visionlab/csrc/hough_so3.cu").is_file()
    assert not list(tmp_path.glob("csrc"))  # nothing of ours at the top level of site-packages
    code = (
        "import json, visionlab.rotation.native as n;"
        "print(json.dumps([n.__file__, str(n.source_folder()), n.text_hash()]))"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    printed = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, check=True
    ).stdout
    module, folder, text_hash = json.loads(printed)
    assert module == str(tmp_path / "visionlab/rotation/native.py")
    assert folder == str(tmp_path / "visionlab/csrc")
    assert text_hash == native.text_hash()
