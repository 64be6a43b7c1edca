import sys
from pathlib import Path

import pytest

from visionlab import checkpoint
from visionlab import config as configs

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
import evaluate
import export

MODEL = {
    "name": "masked_autoencoder",
    "backbone": {"name": "vit", "img_size": 8, "patch_size": 4, "embed_dim": 12, "depth": 1},
    "decoder": {"name": "light", "depth": 1, "dim": 16, "heads": 2},
}


@pytest.fixture
def saved(tmp_path):
    checkpoint.save_model(configs.build(MODEL, key="model"), tmp_path / "m.ckpt", MODEL)
    return tmp_path / "m.ckpt"


def test_export_writes_a_verified_encoder(saved, tmp_path, capsys):
    target = tmp_path / "encoder.safetensors"
    assert export.main([str(saved), str(target)]) == 0
    assert "timm loads it strictly" in capsys.readouterr().out
    assert export.main([str(saved), str(target)]) == 1
    assert "exists" in capsys.readouterr().err
    assert export.main([str(saved), str(target), "--overwrite"]) == 0


def test_export_of_a_missing_checkpoint(tmp_path, capsys):
    assert export.main([str(tmp_path / "no.ckpt"), str(tmp_path / "e.pth")]) == 1
    assert "no checkpoint at" in capsys.readouterr().err


@pytest.mark.parametrize("command", sorted(evaluate.COMMANDS))
def test_every_evaluation_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as stop:
        evaluate.main([command, "--help"])
    assert stop.value.code == 0
    assert "usage" in capsys.readouterr().out


def test_evaluation_of_a_missing_checkpoint(capsys, tmp_path):
    assert evaluate.main(["frozen", str(tmp_path / "no.ckpt")]) == 1
    assert "no checkpoint at" in capsys.readouterr().err


def test_evaluation_of_a_bare_model(saved, capsys):
    assert evaluate.main(["frozen", str(saved)]) == 1
    assert "holds a bare model, not a training run" in capsys.readouterr().err
