import pytest
import torch

import visionlab
from visionlab import checkpoint
from visionlab.backbones import create_backbone
from visionlab.heads import ImageClassifier
from visionlab.tasks import training
from visionlab.tasks.curves import read_curves
from visionlab.tasks.finetuning import Finetuning, check_labels
from visionlab.tasks.probing import LinearProbing

pytestmark = pytest.mark.filterwarnings(
    "ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"
)


@pytest.fixture
def finetuning(tiny_config):
    backbone = tiny_config["task"]["model"]["backbone"] | {"drop_path_rate": 0.0}
    tiny_config["task"] = {
        "name": "finetuning",
        "model": {"name": "image_classifier", "num_classes": 4, "backbone": backbone},
        "optimizer": {"name": "adamw", "lr": 0.01, "layer_decay": 0.9},
    }
    tiny_config["data"]["datasets"]["val"] = tiny_config["data"]["datasets"]["train"]
    tiny_config["trainer"]["max_epochs"] = 15
    return tiny_config


def accuracy(output):
    return read_curves(output / "metrics.csv")["val/top1"][-1][1]


def test_fine_tuning_learns_brightness(finetuning):
    finetuning["task"] |= {"mixup": 0.0, "cutmix": 0.0, "random_erasing": 0.0}
    assert accuracy(training.run(finetuning)) > 0.8  # chance is 0.25


def test_mixup_cutmix_and_erasing_run_and_repeat(finetuning):
    finetuning["trainer"]["max_epochs"] = 2
    first = read_curves(training.run(finetuning) / "metrics.csv")
    finetuning["output"] += "_again"
    assert read_curves(training.run(finetuning) / "metrics.csv") == first


def test_pretrained_encoder_is_fine_tuned(finetuning, tiny_config, tmp_path):
    model = {"name": "masked_autoencoder", "decoder": {"name": "light", "depth": 1, "dim": 16,
             "heads": 2}, "backbone": finetuning["task"]["model"]["backbone"]}  # fmt: skip
    from visionlab import config as configs

    mae = configs.build(model, key="model")
    checkpoint.save_model(mae, tmp_path / "mae.ckpt", model)
    finetuning["task"]["model"]["backbone"]["checkpoint_path"] = str(tmp_path / "mae.ckpt")
    classifier = configs.build(finetuning["task"]["model"], key="model")
    assert torch.equal(classifier.backbone.pos_embed, mae.backbone.pos_embed)
    finetuning["trainer"]["max_epochs"] = 1
    output = training.run(finetuning)
    (tmp_path / "mae.ckpt").unlink()  # the fine-tuned checkpoint stands alone
    assert visionlab.load(output / "last.ckpt").head.out_features == 4


def test_linear_probe_trains_the_head_alone(finetuning):
    finetuning["task"] = {
        "name": "linear_probing",
        "model": finetuning["task"]["model"] | {"freeze_backbone": True, "norm": "batch"},
    }
    finetuning["trainer"]["max_epochs"] = 2
    output = training.run(finetuning)
    from visionlab import config as configs
    from visionlab.data.randomness import seed_all

    seed_all(finetuning["seed"])
    before = configs.build(finetuning["task"]["model"], key="model").state_dict()
    after = visionlab.load(output / "last.ckpt").state_dict()
    changed = {k for k in before if not torch.equal(before[k], after[k])}
    assert {"head.weight", "head.bias"} <= changed
    assert not any(k.startswith("backbone.") for k in changed)


def test_linear_probe_wants_a_frozen_backbone():
    vit = create_backbone("vit", img_size=8, patch_size=4, embed_dim=6, depth=1)
    with pytest.raises(ValueError, match="freeze_backbone=true"):
        LinearProbing(ImageClassifier(vit, 3))


def test_label_out_of_range():
    with pytest.raises(ValueError, match=r"labels run from 0 to 7.*4 classes \(0\.\.3\)"):
        check_labels(torch.tensor([0, 7]), 4)


def test_odd_batches_are_not_mixed():
    vit = create_backbone("vit", img_size=8, patch_size=4, embed_dim=6, depth=1)
    task = Finetuning(ImageClassifier(vit, 3))
    batch = {"image": torch.randn(3, 3, 8, 8), "label": torch.tensor([0, 1, 2])}
    assert torch.isfinite(task.loss(batch, 0))
