"""The dispatcher: sections, figures kept, the report of several sections."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from visionlab.figures import read_folder, report

ROOT = Path(__file__).resolve().parents[2]
_SPEC = importlib.util.spec_from_file_location("benchmark", ROOT / "tools" / "benchmark.py")
tool = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(tool)

SECTION = """
import sys
from visionlab.figures import Column, Figure, at_most, measured, publish

if "fail" in sys.argv:
    sys.exit(3)
claim = at_most("ms", float(sys.argv[1]))
publish(measured("masking.toy", "Toy", head="way", columns=[Column("ms", "{ms}")],
                 figures=[Figure("ours", {"ms": 2.0}, claims=[claim])]))
"""


@pytest.fixture
def program(tmp_path):
    """A copy of the dispatcher with one section of its own, in a project of its own."""
    tools = tmp_path / "project" / "tools"
    tools.mkdir(parents=True)
    (tools / "benchmark.py").write_text((ROOT / "tools" / "benchmark.py").read_text())
    (tools / "benchmark_toy.py").write_text(SECTION)
    for name in ("figures", "pictures"):
        (tools.parent / name).symlink_to(ROOT / name)
    return tools / "benchmark.py"


def test_every_step_of_the_plans_names_a_section():
    for step in (*tool.CPU_PLAN, *tool.GPU_PLAN):
        assert (ROOT / "tools" / f"benchmark_{step.split()[0]}.py").is_file(), step


def test_a_misspelt_section_gets_the_nearest(capsys):
    assert tool.main(["maskin"]) == 2
    assert "no section 'maskin'. Did you mean 'masking'?" in capsys.readouterr().err


def test_without_arguments_the_sections_are_listed(capsys):
    assert tool.main([]) == 2
    assert "autoencoder, cuda" in capsys.readouterr().out


def test_a_section_keeps_its_figures_with_their_command(program, tmp_path):
    kept = tmp_path / "kept"
    command = [sys.executable, program, "toy", "3", "/some/where", "--figures", kept]
    subprocess.run(command, check=True)
    table = read_folder(kept)["masking.toy"]
    assert table.command == "python tools/benchmark.py toy 3 DIR"
    assert table.figures[0].holds is True


def test_the_report_says_what_held_what_failed_and_what_was_not_repeated(
    program, tmp_path, monkeypatch, capsys
):
    options = tool.parser().parse_args(["--quick", "--output", str(tmp_path / "out")])
    status = report.run(options, program, ["toy 1", "toy fail"])
    assert status == 1
    text = (tmp_path / "out" / "table.md").read_text()
    assert "Claims that hold on this machine: 1 of 2 measured now." in text
    assert "FAILED (exit status 3): toy fail" in text
    assert "ms at most 1: **does not hold**" in text
    assert "## CPU: not repeated here, read from figures/" in text
    assert "facebookresearch/mae" in text.split("Absent: ")[1].splitlines()[0]
    data = json.loads((tmp_path / "out" / "table.json").read_text())
    assert [r["id"] for r in data["measured now"]] == ["masking.toy.ours", "start.quick.--quick"]
    assert "masking.draws.green" in [r["id"] for r in data["not repeated"]]
    page = (tmp_path / "out" / "index.html").read_text()
    assert "Toy" in page
    again = report.run(options, program, ["toy 2"])
    assert again == 0
    assert "2 of 2 measured now" in (tmp_path / "out" / "table.md").read_text()


def test_the_gpu_section_says_that_it_needs_one(program, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(report, "_sees_cuda", lambda: False)
    options = tool.parser().parse_args(["--gpu", "--output", str(tmp_path / "out")])
    assert report.run(options, program, ["toy 1"], device="gpu") == 2
    assert "needs a CUDA device" in capsys.readouterr().err
    report.run(options, program, ["toy 2"], device="cpu")
    gpu = (tmp_path / "out" / "table.md").read_text().split("## GPU: measured now")[1]
    assert "Needs a CUDA device; torch sees none here." in gpu


def test_only_chosen_sections_run(program, tmp_path, capsys):
    options = tool.parser().parse_args(
        ["--quick", "--only", "toy 2", "--output", str(tmp_path / "out")]
    )
    assert report.run(options, program, ["toy 1", "toy 2", "toy fail"]) == 0
    assert "toy fail" not in capsys.readouterr().out
    options.only = "moon"
    assert report.run(options, program, ["toy 1"]) == 2
    assert "--only moon matches none of: toy 1" in capsys.readouterr().err
