"""Every shipped YAML: it loads, its names, types and arguments fit, its model builds small."""

import copy
import re
from pathlib import Path

import pytest

from visionlab import config as configs

FOLDER = Path(__file__).resolve().parents[1] / "configs"
FILES = sorted(str(p.relative_to(FOLDER)) for p in FOLDER.rglob("*.yaml"))
RUNNABLE = [f for f in FILES if not f.endswith("base.yaml")]


@pytest.mark.parametrize("name", RUNNABLE)
def test_config_is_sound(name):
    configs.check(configs.read(FOLDER / name), name)


@pytest.mark.parametrize("name", RUNNABLE)
def test_first_lines_say_how_to_run_it(name):
    comment = re.match(r"(#.*\n)+", (FOLDER / name).read_text())
    assert comment, name
    assert "python tools/" in comment[0] or "python3 tools/" in comment[0]
    assert f"configs/{name}" in comment[0] or name == "quickstart.yaml"


@pytest.mark.parametrize("name", [f for f in RUNNABLE if f.startswith("masking/")])
def test_masking_model_builds_small(name):
    node = copy.deepcopy(configs.read(FOLDER / name)["task"]["model"])
    node["backbone"]["depth"] = 1
    if "decoder" in node:
        node["decoder"]["depth"] = 1
    model = configs.build(node, key="model")
    assert next(model.parameters()).requires_grad or node.get("freeze_backbone")


@pytest.mark.parametrize("name", [f for f in RUNNABLE if f.startswith("masking/")])
def test_masking_optimizer_and_transforms_build(name):
    config = configs.read(FOLDER / name)
    configs.build(config["task"]["optimizer"], key="optimizer")
    for dataset in config["data"]["datasets"].values():
        configs.build(dataset["transform"], key="transform")
