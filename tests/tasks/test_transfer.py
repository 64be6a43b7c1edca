"""The command that starts downstream runs from encoders: a whole small one, and every mistake."""

import copy
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from visionlab import checkpoint
from visionlab import config as configs
from visionlab.tasks import own_process
from visionlab.tasks.encoders import Encoder, read_encoder, with_encoder, write_untrained
from visionlab.tasks.own_process import one_device, run_apart
from visionlab.tasks.stopping import Interrupted
from visionlab.tasks.training import run as train
from visionlab.tasks.transfer import _with_untrained, summary

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import multitask_fixture

from tools.evaluate import main

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*ModelCheckpoint with manual optimization.*"),
]

VIT = {"name": "vit", "img_size": 16, "patch_size": 4, "embed_dim": 32, "depth": 2, "num_heads": 2,
       "dynamic_img_size": True}  # fmt: skip
TRAINER = {"max_epochs": 1, "accelerator": "cpu", "devices": 1, "log_every_n_steps": 1,
           "num_sanity_val_steps": 0, "enable_model_summary": False, "enable_progress_bar": False,
           "limit_val_batches": 0}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Archives, configs of three downstream tasks, and two pre-trained encoders."""
    folder = tmp_path_factory.mktemp("transfer")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(multitask_fixture, "COUNT", 24)
        multitask_fixture.write_archives(folder)
    images = {"name": "packed_images", "path": str(folder / "cls.npz")}
    content = dict(np.load(folder / "a.npz"))
    np.savez(folder / "cls.npz", **content, classes=["x", "y"])
    data = {"name": "images", "datasets": {"train": images, "val": images}, "batch_size": 8}
    whole = multitask_fixture.config(folder, folder, moe=False)
    for task, name in (("b", "det"), ("c", "seg")):
        node = copy.deepcopy(whole)
        node["task"]["model"]["backbone"] = VIT
        node["task"]["model"]["heads"] = {task: node["task"]["model"]["heads"][task]}
        node["data"]["datasets"] = {task: node["data"]["datasets"][task]}
        _write(folder / f"{name}.yaml", {**node, "trainer": TRAINER})
    classifier = {"name": "image_classifier", "backbone": VIT, "num_classes": 2}
    _write(folder / "cls.yaml", {
        "task": {"name": "finetuning", "model": classifier}, "data": data, "trainer": TRAINER,
    })  # fmt: skip
    pretraining = {
        "task": {"name": "masked_pretraining", "model": {
            "name": "masked_autoencoder", "backbone": VIT, "mask": {"name": "green"},
            "decoder": {"name": "light", "depth": 1, "dim": 16, "heads": 2}}},
        "data": data, "trainer": TRAINER,
    }  # fmt: skip
    for seed in (0, 1):
        train({**copy.deepcopy(pretraining), "seed": seed, "output": str(folder / f"green_{seed}")})
    return folder


def _write(path: Path, node: dict) -> None:
    path.write_text(yaml.safe_dump(node))


def transfer(folder: Path, output: Path, *arguments: str, names=("cls", "seg", "det")) -> int:
    encoders = [str(folder / f"green_{s}" / "last.ckpt") for s in (0, 1)]
    paths = [f"{n.upper()}={folder / n}.yaml" for n in names]
    options = ["--config", *paths, "--output", str(output), *arguments]
    return main(["transfer", *encoders, *options])


def test_every_encoder_on_every_task_in_one_table(folder, tmp_path, capsys):
    frozen = ["--frozen", f"CLS={folder / 'cls.yaml'}"]
    assert transfer(folder, tmp_path, "--untrained", *frozen) == 0
    printed = capsys.readouterr().out
    for column in ("CLS top-1", "SEG mIoU", "DET AP", "CLS k-NN", "CLS linear probe"):
        assert column in printed
    assert printed.count("+-") >= 10
    saved = json.loads((tmp_path / "results.json").read_text())
    assert [row["encoder"] for row in saved["table"]] == ["untrained", "green"]
    assert {r["encoder"] for r in saved["runs"]} == {f"{n}_{s}" for n in ("untrained", "green")
                                                     for s in (0, 1)}  # fmt: skip
    last = checkpoint.read(tmp_path / "green_1" / "SEG" / "last.ckpt")
    assert checkpoint.config_of(last)["seed"] == 1


def test_what_is_finished_is_kept_and_what_was_cut_off_goes_on(folder, tmp_path, capsys):
    assert transfer(folder, tmp_path, names=["seg"]) == 0
    first = json.loads((tmp_path / "results.json").read_text())
    written = (tmp_path / "green_1" / "SEG" / "last.ckpt").stat().st_mtime_ns
    (tmp_path / "green_0" / "SEG" / "results.json").unlink()  # as if killed before it was scored
    assert transfer(folder, tmp_path, names=["seg"]) == 0
    assert json.loads((tmp_path / "results.json").read_text()) == first
    assert (tmp_path / "green_1" / "SEG" / "last.ckpt").stat().st_mtime_ns == written
    assert capsys.readouterr().err.count("kept: ") == 1


def test_a_table_of_another_config_is_not_continued(folder, tmp_path, capsys):
    assert transfer(folder, tmp_path, names=["cls"]) == 0
    assert transfer(folder, tmp_path, "--set", "data.batch_size=4", names=["cls"]) == 1
    error = capsys.readouterr().err
    assert "data.batch_size" in error
    assert "holds another one, with another config" in error


def test_the_run_starts_from_the_encoder(folder):
    node = configs.read(folder / "seg.yaml")
    path = folder / "green_0" / "last.ckpt"
    model = configs.build(with_encoder(node, path, "seg")["task"]["model"], key="model")
    trained = checkpoint.read(path)["state_dict"]
    for name, value in model.backbone.state_dict().items():
        assert torch.equal(value, trained[f"model.backbone.{name}"]), name
    assert "checkpoint_path" not in node["task"]["model"]["backbone"]


def test_the_untrained_encoder_is_the_start_of_the_training(folder, tmp_path):
    encoder = read_encoder(folder / "green_1" / "last.ckpt")
    assert (encoder.label, encoder.group, encoder.seed) == ("green_1", "green", 1)
    untrained = write_untrained(encoder, tmp_path)
    state = checkpoint.read(untrained.path)["state_dict"]
    trained = checkpoint.read(encoder.path)["state_dict"]
    assert torch.equal(state["model.backbone.pos_embed"], trained["model.backbone.pos_embed"])
    weight = "model.backbone.blocks.0.mlp.fc1.weight"
    assert 0 < (state[weight] - trained[weight]).abs().max() < 0.05
    again = write_untrained(encoder, tmp_path / "again")
    assert torch.equal(checkpoint.read(again.path)["state_dict"][weight], state[weight])


def test_untrained_encoders_of_two_architectures(folder, tmp_path):
    node = configs.read(folder / "green_0" / "config.yaml")["task"]["model"]
    other = copy.deepcopy(node)
    other["backbone"]["embed_dim"] = 48
    other_path = tmp_path / "wide_0" / "last.ckpt"
    config = {"task": {"model": other}, "seed": 0}
    checkpoint.save({"state_dict": {}, "visionlab": checkpoint.metadata(config)}, other_path)
    narrow, wide = read_encoder(folder / "green_0" / "last.ckpt"), read_encoder(other_path)
    first, second = (write_untrained(e, tmp_path) for e in (narrow, wide))
    sizes = [checkpoint.read(e.path)["state_dict"]["model.backbone.pos_embed"].shape[-1]
             for e in (first, second)]  # fmt: skip
    assert sizes == [32, 48]
    together = _with_untrained([narrow, wide], tmp_path / "out", trust_code=False)
    assert len({e.label for e in together}) == 4
    assert write_untrained(narrow, tmp_path).path == first.path
    config = {"task": {"model": {**node, "mask": {"name": "random"}}}, "seed": 0}
    path = tmp_path / "random_0.ckpt"
    checkpoint.save({"state_dict": {}, "visionlab": checkpoint.metadata(config)}, path)
    random = read_encoder(path)
    assert write_untrained(random, tmp_path).path == first.path  # another mask, one backbone
    assert random.model != narrow.model


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_runs_on_two_ranks_and_one_table(folder, tmp_path, capfd):
    arguments = ["transfer", str(folder / "green_0" / "last.ckpt"),
                 "--config", f"CLS={folder / 'cls.yaml'}", "--output", str(tmp_path / "out"),
                 "--set", "trainer.devices=2", "trainer.strategy=ddp"]  # fmt: skip
    assert main(arguments) == 0
    said = capfd.readouterr()  # of the run's processes, too
    assert said.out.count("Transfer, val split") == 1
    assert "2 x cpu" in said.err
    rows = json.loads((tmp_path / "out" / "results.json").read_text())["runs"]
    assert "top1" in {r["figure"] for r in rows}


def test_transfer_is_not_for_torchrun(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("visionlab.tasks.own_process.launched",
                        lambda: {"devices": 4, "num_nodes": 2})  # fmt: skip
    assert transfer(folder, tmp_path) == 1
    assert "'transfer' was launched as 8 processes; start it as one" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("trainer", "alone"),
    [({"devices": 1}, True), ({"devices": [3]}, True), ({"devices": "1"}, True), ({}, False),
     ({"devices": 8}, False), ({"devices": [0, 1]}, False), ({"devices": 1, "num_nodes": 2}, False),
     ({"devices": -1}, False)],
)  # fmt: skip
def test_runs_of_one_device_stay_in_the_process(trainer, alone):
    assert one_device({"trainer": trainer}) is alone


def test_a_run_apart_that_fails_or_is_stopped(tmp_path, monkeypatch):
    script = tmp_path / "train.py"
    monkeypatch.setattr(own_process, "_TRAIN", script)
    config = {"output": str(tmp_path / "run"), "seed": 3}
    script.write_text("import sys; sys.exit(3 + (sys.argv[2:] == ['--trust-code']))")
    with pytest.raises(RuntimeError, match=r"ended with status 3, its own message stands above"):
        run_apart(config)
    with pytest.raises(RuntimeError, match=r"ended with status 4"):
        run_apart(config, trust_code=True)
    script.write_text(
        "import os, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))\n"
        "os.kill(os.getppid(), signal.SIGTERM)\n"
        "time.sleep(60)\n"
    )
    with pytest.raises(Interrupted) as caught:  # the run ends by the signal that was handed on
        run_apart(config)
    assert caught.value.code == 75
    assert configs.read_plain(tmp_path / "run" / "config.yaml") == config


def test_windows_and_experts_are_built_around_the_encoder(folder):
    """Sparse upcycling: the multi-task MoE gives what the encoder gave, at the start."""
    path = folder / "green_0" / "last.ckpt"
    node = configs.read(folder / "seg.yaml")
    dense = configs.build(with_encoder(node, path, "seg")["task"]["model"], key="model").eval()
    node["task"]["model"]["backbone"] = {
        "name": "moe_vit", "upcycle": True, "num_experts": 4, "top_k": 2, "tasks": ["c"],
        "backbone": {"name": "windowed", "window": 16, "backbone": VIT},
    }  # fmt: skip
    routed = configs.build(with_encoder(node, path, "seg")["task"]["model"], key="model").eval()
    images = torch.randn(2, 3, 16, 16)
    expected = dense.features(images, task="c").tokens
    assert torch.allclose(routed.features(images, task="c").tokens, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config", "{f}/sge.yaml"], "no file 'sge.yaml' in .* Did you mean 'seg.yaml'"),
        ([], "nothing to evaluate on: give --config or --frozen"),
        (["--config", "{f}/seg.yaml", "{f}/seg.yaml"], "several configs are named seg"),
        (["--config", "{f}/seg.yaml", "--set", "task.model.backbone.embed_dim=64",
          "task.model.heads.c.dim=64"],
         "green_0/last.ckpt does not fit the backbone of .*seg.yaml; .* other shapes"),
        (["--config", "{f}/seg.yaml", "--set", "data.datasets.c.image_size=18"],
         "seg.yaml, c train: the image is 18x18 pixels, which patches of 4x4 do not divide"),
        (["--config", "{f}/cls.yaml", "--set", "task.model.backbone.img_size=32",
          "task.model.backbone.dynamic_img_size=false"],
         "pictures of 16x16 px for a backbone of 32x32; set dynamic_img_size"),
        (["--config", "{f}/seg.yaml", "--set", "data.datasets.c.datasets.train.path=absent.npz"],
         "no file absent.npz"),
        (["--config", "{f}/seg.yaml", "--set", "task.model.heads.c.num_classes=5"],
         "the data of 'c' have 3 classes, its head 5"),
        (["--config", "{f}/green_0/config.yaml"],
         "scores are for an image classifier on images .* got MaskedAutoencoder on ImageData"),
        (["--frozen", "{f}/seg.yaml"], "k-NN and probe need data of the kind 'images'"),
    ],
)  # fmt: skip
def test_mistakes_are_found_before_anything_is_trained(
    folder, tmp_path, capsys, arguments, message
):
    arguments = [a.replace("{f}", str(folder)) for a in arguments]
    path = str(folder / "green_0" / "last.ckpt")
    assert main(["transfer", path, "--output", str(tmp_path / "out"), *arguments]) == 1
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert not list(tmp_path.rglob("last.ckpt"))


def test_encoders_that_cannot_start_a_run(folder, tmp_path, capsys):
    config = ["--config", str(folder / "seg.yaml"), "--output", str(tmp_path)]
    assert main(["transfer", "absent.ckpt", *config]) == 1
    assert "no checkpoint at absent.ckpt" in capsys.readouterr().err
    path = str(folder / "green_0" / "last.ckpt")
    assert main(["transfer", path, path, *config]) == 1
    assert "several encoders are labelled green_0" in capsys.readouterr().err
    weights = tmp_path / "official.pth"
    torch.save({"model": {}}, weights)
    assert main(["transfer", str(weights), "--untrained", *config]) == 1
    assert "carries no config" in capsys.readouterr().err
    checkpoint.save({"state_dict": {"model.network.weight": torch.zeros(2)}}, tmp_path / "p.ckpt")
    assert main(["transfer", str(tmp_path / "p.ckpt"), *config]) == 1
    error = capsys.readouterr().err
    assert "p.ckpt does not fit the backbone of" in error
    assert "missing cls_token" in error
    with pytest.raises(configs.ConfigError, match=r"task\.model has no backbone"):
        with_encoder({"task": {"model": {"name": "learned_proximal_network"}}}, weights, "x.yaml")


def test_groups_and_columns_of_the_table():
    def row(encoder, figure, percent, data="COCO", task="things", model="m"):
        own = Encoder(encoder, Path(), 0, model)
        return {"encoder": encoder, "kind_of_encoder": own.group, "model": model,
                "figure": figure, "percent": percent, "data": data, "task": task}  # fmt: skip

    rows = [row("green_0", "ap50", 1.0), row("green_0", "coco_map", 2.0),
            row("green_1", "coco_map", 4.0), row("green_0", "coco_mask_map", 3.0),
            row("mae_vit_b16", "top1", 5.0, "ImageNet", "classes")]  # fmt: skip
    table = summary(rows)
    assert table[0] == {
        "encoder": "green",
        "COCO AP box": "3.00 +- 1.41 (2)",
        "COCO AP mask": "3.00",
    }
    assert table[1] == {"encoder": "mae_vit_b16", "ImageNet top-1": "5.00"}
    sizes = [
        row("vit_224", "top1", 1.0, model=""),
        row("vit_384", "top1", 2.0, model=""),
        row("own_1", "top1", 3.0, model="a"),
        row("own_2", "top1", 4.0, model="b"),
    ]
    assert [r["encoder"] for r in summary(sizes)] == ["vit_224", "vit_384", "own_1", "own_2"]
