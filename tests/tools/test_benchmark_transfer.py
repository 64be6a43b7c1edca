"""Which runs stand behind the table of masks, and how they become its rows; nothing is trained."""

import importlib.util
import sys
from pathlib import Path

import pytest

from visionlab import checkpoint
from visionlab.figures import collect_into, read_folder

_PATH = Path(__file__).parents[2] / "tools" / "benchmark_transfer.py"


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.setenv("TIMM_FUSED_ATTN", "0")
    spec = importlib.util.spec_from_file_location("benchmark_transfer", _PATH)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "benchmark_transfer", module)
    spec.loader.exec_module(module)
    return module


def test_runs_and_table(bench, tmp_path, monkeypatch, capsys):
    trained, scored = [], []

    def train(config, resume):
        folder = Path(config["output"])
        trained.append((folder.name, config["task"]["model"]["mask"]["name"], resume))
        checkpoint.save(
            {"state_dict": {}, "visionlab": checkpoint.metadata(config)}, folder / "last.ckpt"
        )

    def score(encoder, task, seed, output):
        scored.append((encoder.label, task.name, task.frozen, seed))
        figure = "probe" if task.frozen else "miou"
        return [{"encoder": encoder.label, "kind_of_encoder": encoder.group, "data": task.name,
                 "task": "a", "figure": figure, "percent": 10.0 + seed}]  # fmt: skip

    monkeypatch.setattr("visionlab.tasks.training.run", train)
    monkeypatch.setattr("visionlab.tasks.transfer.run_one", score)
    tasks = ["--tasks", "frozen", "segmentation"]
    arguments = ["--seeds", "2", "--masks", "random", "green", *tasks, "--output", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["benchmark_transfer.py", *arguments])
    collect_into(tmp_path / "figures", command="test")
    bench.main()
    assert [t[:2] for t in trained] == [
        ("random_0", "random"),
        ("green_0", "green"),
        ("random_1", "random"),
        ("green_1", "green"),
    ]
    labels = ["untrained_0", "random_0", "green_0", "untrained_1", "random_1", "green_1"]
    assert [s[0] for s in scored[::2]] == labels
    assert {s[1:3] for s in scored} == {("CamVid", False), ("CIFAR-10", True)}
    text = capsys.readouterr().out
    assert "| masks | CamVid mIoU | CIFAR-10 linear probe |" in text
    assert text.count("10.50 +- 0.71 (2)") == 6
    (table,) = read_folder(tmp_path / "figures").values()
    assert table.id == "masking.transfer"
    assert list(table.figures[0].spread["mean0"]) == [10.0, 11.0]


def test_a_mask_by_its_name_keeps_the_ratio(bench, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("visionlab.tasks.training.run", lambda config, resume: seen.append(config))
    bench.pretrain("random", 3, tmp_path, ["trainer.max_epochs=7"])
    (config,) = seen
    assert config["task"]["model"]["mask"] == {"name": "random", "ratio": 0.75}
    assert (config["seed"], config["trainer"]["max_epochs"]) == (3, 7)
