"""The table of several seeds is read from run folders, and each run is what its row says."""

import importlib.util
import sys
from pathlib import Path

import pytest

_PATH = Path(__file__).parents[2] / "tools" / "benchmark_multitask.py"
_SPEC = importlib.util.spec_from_file_location("benchmark_multitask", _PATH)
bench = importlib.util.module_from_spec(_SPEC)
sys.modules["benchmark_multitask"] = bench
_SPEC.loader.exec_module(bench)


def finish(folder: Path, **values: float) -> None:
    """A run folder as a training leaves it; the last value of a curve counts."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = ["step,metric,value"]
    for name, value in values.items():
        rows += [f"1,val/{name},0", f"2,val/{name},{value}"]
    (folder / "metrics.csv").write_text("\n".join(rows) + "\n")
    (folder / "results.json").write_text("{}")


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmark_multitask.py", *arguments])
    bench.main()


def test_table_of_finished_runs(tmp_path, monkeypatch, capsys) -> None:
    for seed, top1 in ((0, 50.0), (1, 60.0)):
        finish(tmp_path / f"dense_{seed}", digits_top1=top1, boxes_ap50=40, pixels_miou=30)
        finish(tmp_path / f"single_digits_{seed}", digits_top1=top1 + 1)
        finish(tmp_path / f"single_boxes_{seed}", boxes_ap50=41)
        finish(tmp_path / f"single_pixels_{seed}", pixels_miou=31)
    run(monkeypatch, "items", "--table", "--seeds", "2", "--output", str(tmp_path))
    text = capsys.readouterr().out
    assert (
        "| dense, three tasks | 55.0 (50.0, 60.0) | 40.0 (40.0, 40.0) | 30.0 (30.0, 30.0) | "
        "41.7 (40.0, 43.3) |"
    ) in text
    assert "| dense, one model a task | **56.0 (51.0, 61.0)** |" in text
    assert "Pruned" not in text  # no surgery, and no MoE run
    assert not (tmp_path / "information.png").exists()


def test_each_run_is_its_config(tmp_path, monkeypatch) -> None:
    done = []

    def record(config, resume):
        done.append((Path(config["output"]).name, config, resume))
        finish(Path(config["output"]), digits_top1=1, boxes_ap50=1, pixels_miou=1)

    monkeypatch.setattr("visionlab.tasks.training.run", record)
    (tmp_path / "moe_0").mkdir()
    (tmp_path / "moe_0" / "last.ckpt").touch()  # stopped half-way
    arguments = ["items", "--no-surgery", "--seeds", "1", "--output", str(tmp_path)]
    run(monkeypatch, *arguments, "--set", "trainer.max_epochs=2")
    run(monkeypatch, *arguments)  # everything is finished
    names = ["moe_0", "moe_off_0", "dense_0"]
    names += [f"single_{task}_0" for task in ("digits", "boxes", "pixels")]
    assert [name for name, _, _ in done] == names
    by_name = {name: config for name, config, _ in done}
    assert by_name["moe_0"]["task"]["routing"]["information"] > 0
    assert by_name["moe_off_0"]["task"]["routing"] is None
    assert all(config["trainer"]["max_epochs"] == 2 for config in by_name.values())
    assert [resume for _, _, resume in done] == [tmp_path / "moe_0" / "last.ckpt", *[None] * 5]


def test_every_row_has_its_configs() -> None:
    folder = _PATH.parents[1] / "configs" / "moe"
    for comparison in bench.COMPARISONS.values():
        for row in comparison.rows:
            assert all((folder / f"{run[0]}.yaml").is_file() for run in row.runs)


def test_unknown_row(monkeypatch, capsys) -> None:
    with pytest.raises(SystemExit):
        run(monkeypatch, "items", "--rows", "dens")
    assert "no row 'dens'. Did you mean 'dense'" in capsys.readouterr().err
