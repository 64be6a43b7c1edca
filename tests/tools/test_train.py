import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
import train  # noqa: E402

pytestmark = pytest.mark.filterwarnings(
    "ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"
)


def cpu_seconds_of_children() -> float:
    """Processor time of finished child processes: other load on the machine does not change it."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


@pytest.fixture
def config(tmp_path):
    import numpy as np

    labels = np.arange(24) % 3
    images = np.random.default_rng(0).integers(0, 255, (24, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", images=images, labels=labels)
    dataset = {"name": "array_images", "path": str(tmp_path / "images.npz")}
    content = {
        "_base_": str(ROOT / "configs" / "base.yaml"),
        "output": str(tmp_path / "run"),
        "task": {
            "name": "masked_pretraining",
            "model": {
                "name": "masked_autoencoder",
                "backbone": {"name": "vit", "img_size": 8, "patch_size": 2, "in_chans": 1,
                             "embed_dim": 12, "depth": 1},
                "decoder": {"name": "light", "depth": 1, "dim": 16, "heads": 2},
            },
        },
        "data": {"name": "images", "datasets": {"train": dataset, "test": dataset},
                 "batch_size": 8, "mean": [0.5], "std": [0.25]},
        "trainer": {"max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False,
                    "log_every_n_steps": 1},
    }  # fmt: skip
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_train_resume_and_finish(config, capsys, tmp_path):
    assert train.main([str(config)]) == 0
    assert (tmp_path / "run" / "results.json").exists()
    assert "tables: " + str(tmp_path / "run") in capsys.readouterr().out
    assert train.main([str(config)]) == 0
    assert "is finished" in capsys.readouterr().out
    last = str(tmp_path / "run" / "last.ckpt")
    assert train.main([last, "trainer.max_epochs=2"]) == 0
    steps = [
        r.split(",")[0] for r in (tmp_path / "run" / "metrics.csv").read_text().splitlines()[1:]
    ]
    assert [int(s) for s in steps] == list(range(6))


def test_a_run_can_be_resumed_into_another_folder(config, tmp_path):
    assert train.main([str(config)]) == 0
    last, new = str(tmp_path / "run" / "last.ckpt"), tmp_path / "new"
    assert train.main([last, "trainer.max_epochs=2", f"output={new}"]) == 0
    assert (new / "results.json").exists()


def test_a_start_that_failed_does_not_block_the_corrected_one(config, capsys):
    assert train.main([str(config), "trainer.precision=zz"]) == 1
    assert "precision" in capsys.readouterr().err.lower()
    assert train.main([str(config)]) == 0


def test_another_config_in_the_same_folder_says_what_changed(config, capsys):
    assert train.main([str(config)]) == 0
    assert train.main([str(config), "seed=5", "task.model.mask=green"]) == 1
    error = capsys.readouterr().err
    assert "seed: 0 -> 5" in error
    assert "task.model.mask: (absent) -> green" in error
    assert "choose another folder" in error


def test_resume_says_what_changed_and_keeps_the_model(config, capsys, tmp_path):
    assert train.main([str(config)]) == 0
    last = str(tmp_path / "run" / "last.ckpt")
    assert train.main([last, "trainer.max_epochs=2", "data.batch_size=4"]) == 0
    assert "resuming with a changed config: data.batch_size: 8 -> 4" in capsys.readouterr().err
    assert train.main([last, "task.model.backbone.depth=2"]) == 1
    assert "cannot change its model" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["configs/quickstrat.yaml"], "Did you mean 'quickstart.yaml'"),
        (["configs/quickstart.yaml", "trainer.max_epoch=3"], "Did you mean 'max_epochs'"),
        (["configs/quickstart.yaml", "task.model.mask=gren"], "Did you mean 'green'"),
        (["configs/quickstart.yaml", "task.model.mask.ratio=high"], "expected float, got 'high'"),
        (["configs/quickstart.yaml", "task.model.mask.ratio=1.5"], "ratio"),
        (["configs/quickstart.yaml", "data.datasets.train.root=/dev/null/x"], "Fashion-MNIST"),
        (["nowhere/last.ckpt"], "no checkpoint at"),
    ],
)
def test_mistakes_get_one_clear_sentence(arguments, message, capsys, monkeypatch, tmp_path):
    from visionlab.data import fashion_mnist

    def offline(folder):
        raise OSError("no network")

    monkeypatch.setattr(fashion_mnist, "_from_torchvision", offline)
    monkeypatch.setattr(fashion_mnist, "_from_debian", offline)
    monkeypatch.chdir(ROOT)
    output = [f"output={tmp_path / 'run'}"] if arguments[0].endswith("start.yaml") else []
    assert train.main([*arguments, *output]) == 1
    error = capsys.readouterr().err
    assert sum(line.startswith("error: ") for line in error.splitlines()) == 1
    assert message in error
    assert "Traceback" not in error


def test_pictures_of_another_size_get_one_clear_sentence(config, capsys):
    assert train.main([str(config), "task.model.backbone.img_size=12"]) == 1
    error = capsys.readouterr().err
    assert "error: the backbone takes images of 12x12, got 8x8; create it with img_size" in error
    assert "Traceback" not in error


@pytest.mark.parametrize("arguments", [
    ["--help"], ["configs/quickstrat.yaml"], ["configs/quickstart.yaml", "task.model.maks=green"],
    ["configs/quickstart.yaml", "task.model.backbone=vit_tny_patch16_224"],
])  # fmt: skip
def test_help_and_misspelt_names_answer_within_a_second(arguments):
    seconds = []
    for _ in range(3):
        start = cpu_seconds_of_children()
        subprocess.run([sys.executable, "tools/train.py", *arguments], cwd=ROOT,
                       capture_output=True, check=False)  # fmt: skip
        seconds.append(cpu_seconds_of_children() - start)
    assert min(seconds) < 1.0


def test_check_builds_nothing(config, capsys, tmp_path):
    assert train.main([str(config), "--check"]) == 0
    assert "no errors" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


def test_results_are_plain_json(config, tmp_path):
    arguments = ["evaluations=[{name: frozen_features, k: 3}]"]
    assert train.main([str(config), *arguments]) == 0
    rows = json.loads((tmp_path / "run" / "results.json").read_text())["Frozen encoder"]
    assert rows[0].keys() == rows[1].keys()
