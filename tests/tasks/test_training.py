import json
import signal
import time
from pathlib import Path

import pytest
import torch
import yaml

import visionlab
from tests.faults import child
from tests.forks import nursery
from tests.held import held
from visionlab import checkpoint
from visionlab.checkpoint import CheckpointError
from visionlab.tasks import training
from visionlab.tasks.curves import read_curves
from visionlab.tasks.masked_pretraining import MaskedPretraining

# Lightning's own
pytestmark = pytest.mark.filterwarnings(
    "ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"
)


def curve(folder):
    return read_curves(Path(folder) / "metrics.csv")["train/loss"]


@pytest.fixture
def whole(tiny_config):
    """Curve of the uninterrupted run."""
    return curve(training.run({**tiny_config, "output": tiny_config["output"] + "_whole"}))


def test_a_run_leaves_everything_behind(tiny_config):
    tiny_config["evaluations"] = [{"name": "frozen_features", "k": 3}]
    output = training.run(tiny_config)
    assert {p.name for p in output.iterdir()} >= {
        "config.yaml", "last.ckpt", "metrics.csv", "results.json", "tensorboard"
    }  # fmt: skip
    assert yaml.safe_load((output / "config.yaml").read_text()) == tiny_config
    rows = json.loads((output / "results.json").read_text())["Frozen encoder"]
    assert [r["encoder"] for r in rows] == ["untrained", "trained"]
    steps = [s for s, _ in curve(output)]
    assert steps == list(range(15))


def test_training_lowers_the_loss(tiny_config):
    tiny_config["trainer"]["max_epochs"] = 12
    values = [v for _, v in curve(training.run(tiny_config))]
    assert sum(values[-5:]) < 0.95 * sum(values[:5])


def test_the_same_seed_gives_the_same_run_and_another_one_another(tiny_config, whole):
    assert curve(training.run(tiny_config)) == whole
    tiny_config |= {"seed": 4, "output": tiny_config["output"] + "_seed4"}
    assert curve(training.run(tiny_config)) != whole


class Killed(BaseException):
    pass


@pytest.mark.parametrize("step", [2, 3, 5, 8, 10, 14])
@pytest.mark.parametrize("mask_key", ["step", "sample"])
def test_resuming_is_bit_equal_wherever_it_stopped(tiny_config, monkeypatch, step, mask_key):
    tiny_config["task"]["mask_key"] = mask_key
    expected = curve(training.run({**tiny_config, "output": tiny_config["output"] + "_whole"}))
    loss = MaskedPretraining.loss

    def dies(self, batch, batch_idx):
        if self.global_step == step:
            raise Killed
        return loss(self, batch, batch_idx)

    monkeypatch.setattr(MaskedPretraining, "loss", dies)
    with pytest.raises(Killed):
        training.run(tiny_config)
    monkeypatch.setattr(MaskedPretraining, "loss", loss)
    output = training.run(tiny_config, resume=Path(tiny_config["output"]) / "last.ckpt")
    assert curve(output) == expected


def test_a_finished_run_resumes_to_nothing_but_its_evaluations(tiny_config, whole):
    training.run(tiny_config)
    output = training.run(tiny_config, resume=Path(tiny_config["output"]) / "last.ckpt")
    assert curve(output) == whole


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("rows", [4, 11])
def test_killed_process_resumes_bit_equal(tiny_config, images, tmp_path, rows):
    """SIGKILL at an arbitrary moment of a process, then to the end; all with one thread."""
    path, hold, log = (tmp_path / n for n in ("config.yaml", "hold", "log.txt"))
    tiny_config["data"]["datasets"]["train"] = held(images, hold, 14)  # of 15
    path.write_text(yaml.safe_dump(tiny_config))
    hold.touch()
    metrics = Path(tiny_config["output"]) / "metrics.csv"
    context = nursery()

    def start(*changes):
        arguments = ["--trust-code", str(path), *changes]
        process = context.Process(target=child.main, args=(str(log), arguments, ()))
        process.start()
        return process

    process = start()
    while process.is_alive():
        if metrics.exists() and len(metrics.read_text().splitlines()) > rows:
            process.kill()
            break
        time.sleep(0.002)
    process.join()
    assert process.exitcode == -signal.SIGKILL, log.read_text()
    hold.unlink()
    for changes in ([], [f"output={tmp_path / 'whole'}"]):
        process = start(*changes)
        process.join()
        assert process.exitcode == 0, log.read_text()
    assert curve(tiny_config["output"]) == curve(tmp_path / "whole")


def test_checkpoint_rebuilds_the_trained_model(tiny_config):
    output = training.run(tiny_config)
    model = visionlab.load(output / "last.ckpt")
    task, _ = training.load_task(output / "last.ckpt")
    images = torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(model.encode(images), task.model.encode(images))
    assert not torch.equal(model.backbone.blocks[0].mlp.fc1.weight,
                           _fresh(tiny_config).backbone.blocks[0].mlp.fc1.weight)  # fmt: skip


def _fresh(config):
    from visionlab import config as configs

    return configs.build(config["task"]["model"], key="model")


def test_encoder_without_decoder_cannot_be_loaded_as_autoencoder(tiny_config, tmp_path):
    content = checkpoint.read(training.run(tiny_config) / "last.ckpt")
    content["state_dict"] = {k: v for k, v in content["state_dict"].items() if "decoder" not in k}
    checkpoint.save(content, tmp_path / "cut.ckpt")
    with pytest.raises(CheckpointError, match="missing decoder"):
        visionlab.load(tmp_path / "cut.ckpt")


def test_non_finite_steps_are_skipped_and_counted(tiny_config, monkeypatch, capsys):
    loss = MaskedPretraining.loss

    def sometimes(self, batch, batch_idx):
        parts = loss(self, batch, batch_idx)
        factor = float("nan") if self.global_step in (4, 5) else 1.0
        return {"loss": parts["loss"] * factor}

    monkeypatch.setattr(MaskedPretraining, "loss", sometimes)
    output = training.run(tiny_config)
    assert "2 steps with a non-finite loss were skipped" in capsys.readouterr().out
    weights = checkpoint.read(output / "last.ckpt")["state_dict"]
    assert all(torch.isfinite(v).all() for v in weights.values())
    assert all(torch.isfinite(torch.tensor(v)) for s, v in curve(output) if s not in (4, 5))


def test_too_many_non_finite_steps_stop_the_run(tiny_config, monkeypatch):
    tiny_config["task"]["nonfinite_limit"] = 3

    def always(self, batch, batch_idx):
        return self.masked(batch, batch_idx).loss * float("inf")

    monkeypatch.setattr(MaskedPretraining, "loss", always)
    with pytest.raises(RuntimeError, match=r"4 steps .* not finite .*lower the learning rate"):
        training.run(tiny_config)


def test_scheduled_masks_follow_the_epoch(tiny_config):
    tiny_config["task"]["model"]["repeats"] = 2
    tiny_config["trainer"]["accumulate_grad_batches"] = 2
    assert len(curve(training.run(tiny_config))) > 0


def test_pictures_are_drawn(tiny_config):
    tiny_config["task"]["picture_every_epochs"] = 3
    tiny_config["evaluations"] = [{"name": "mask_pictures", "count": 2}]
    output = training.run(tiny_config)
    names = {p.name for p in (output / "pictures").glob("*.png")}
    assert names == {"reconstruction_0003.png", "reconstruction.png", "masks.png"}
