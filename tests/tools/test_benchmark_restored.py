"""Tables made from the folders that ``tools/evaluate.py restore`` writes."""

import json
import runpy
import sys
from pathlib import Path

import pytest

from visionlab.figures import collector

SECTION = Path(__file__).parents[2] / "tools" / "benchmark.py"

RESTORED = """problem,method,PSNR,SSIM,validation PSNR,theorem,chosen on validation
blur1,input,28.4,0.68,26.1,,
blur1,Wiener,29.2,0.71,27.5,,
blur1,TV,31.8,0.82,28.7,,weight=0.003
blur1,"LPN, ADMM safeguarded",32.3,0.84,29.4,yes,weight=0.04
blur1,"LPN, ADMM",32.4,0.84,29.4,no,weight=0.04
cs4,least squares,12.6,0.1,8,,
cs4,TV,42.6,0.95,39,,
cs4,"LPN, mirror descent, from TV",42.9,0.94,41,yes,
denoise,input,20.0,0.35,20,,
denoise,TV,28.2,0.74,27,,
denoise,"network, one pass",28.9,0.77,28,,
"""
LONG = """problem,method,start PSNR,best PSNR,at,last PSNR,iterations,largest rise,last residual
cs4,"LPN, mirror descent, from TV",42.6,42.9,3,42.5,900,3e-7,0.0
cs4,"LPN, ADMM, from TV",42.6,42.9,3,42.5,1000,0.1,0.0
"""


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, dict]:
    (tmp_path / "restoration.csv").write_text(RESTORED)
    (tmp_path / "convergence.csv").write_text(LONG)
    monkeypatch.setattr(collector, "_listener", {})
    arguments = [
        "restored", "--run", "Kodak", str(tmp_path), "--denoised", "gray", str(tmp_path), "28.95",
        "--long-run", "CT", str(tmp_path), "--note", "Why.", "--figures", str(tmp_path / "found"),
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", [str(SECTION)])
    runpy.run_path(str(SECTION))["main"](arguments)
    content = json.loads((tmp_path / "found" / "proximal.json").read_text())
    return {t["id"]: t for t in content["tables"]}


def rows(table: dict) -> dict[str, dict]:
    return {f["what"]: f["values"] for f in table["figures"]}


def test_each_problem_is_a_row_with_its_rivals(tables: dict[str, dict]) -> None:
    table = tables["proximal.restoration"]
    assert (table["source"], table["note"]) == ("run folder", "Why.")
    blur, sensing = rows(table).items()
    assert blur[0] == "Kodak: Gaussian blur 1, noise .02 (ADMM safeguarded)"
    expected = {"input": 28.4, "classical": 29.2, "tv": 31.8, "theorem": 32.3, "admm": 32.4,
                "over_classical": 3.1, "over_tv": 0.5, "over_admm": -0.1}  # fmt: skip
    assert blur[1] == pytest.approx(expected)  # a miss stays in sight
    assert sensing[0].endswith("(mirror descent)")
    assert sensing[1]["over_tv"] == pytest.approx(0.3)
    assert "admm" not in sensing[1]


def test_denoising_claims_its_level_and_tv(tables: dict[str, dict]) -> None:
    network = tables["proximal.photos"]["figures"][-1]
    assert network["values"] == pytest.approx({"db": 28.9, "ssim": 0.77, "over_tv": 0.7})
    assert [(c["value"], c["limit"]) for c in network["claims"]] == [("db", 28.95), ("over_tv", 0)]


def test_long_runs_hold_what_a_theorem_covers(tables: dict[str, dict]) -> None:
    (row,) = tables["proximal.long_runs"]["figures"]
    assert row["values"]["lost"] == pytest.approx(0.4)
    assert row["values"]["over_start"] == pytest.approx(-0.1)
    assert [c["value"] for c in row["claims"]] == ["lost", "over_start", "rise"]
