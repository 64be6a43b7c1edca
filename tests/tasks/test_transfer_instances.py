"""Detection and instance masks by ViTDet's recipe in small: COCO JSON to the two AP columns."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from visionlab import checkpoint
from visionlab.backbones import create_backbone

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tools.evaluate import main

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*ModelCheckpoint with manual optimization.*"),
]

VIT = {"name": "vit", "img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 4, "num_heads": 2,
       "dynamic_img_size": True}  # fmt: skip


def write_coco(folder: Path, pictures: int = 8) -> None:
    """Bright rectangles on dark ground, two categories with a gap in their ids, one crowd."""
    rng = np.random.default_rng(0)
    images, annotations = [], []
    (folder / "images").mkdir()
    for i in range(pictures):
        pixels = rng.integers(0, 50, (40, 48, 3)).astype(np.uint8)
        for k in range(2):
            x, y = 2 + 24 * k + int(rng.integers(0, 4)), int(rng.integers(2, 12))
            w, h = 14, 16
            pixels[y : y + h, x : x + w, k] = 250
            polygon = [x, y, x + w, y, x + w, y + h, x, y + h]
            annotations.append({
                "id": len(annotations), "image_id": i, "category_id": (3, 7)[k], "iscrowd": 0,
                "bbox": [x, y, w, h], "segmentation": [polygon],
            })  # fmt: skip
        Image.fromarray(pixels).save(folder / "images" / f"{i}.png")
        images.append({"id": i, "file_name": f"{i}.png", "height": 40, "width": 48})
    categories = [{"id": 3, "name": "red"}, {"id": 7, "name": "green"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "instances.json").write_text(json.dumps(content))


def config(folder: Path, *, masks: bool = True) -> dict:
    reader = {"name": "coco_detection", "images": str(folder / "images"),
              "annotations": str(folder / "instances.json"), "masks": masks}  # fmt: skip
    head = {"name": "faster_rcnn", "dim": 32, "num_classes": 2, "patch_size": 8, "masks": True,
            "channels": 16, "scales": [2, 1], "hidden": 32, "box_convs": 1}  # fmt: skip
    return {
        "task": {
            "name": "multitask",
            "model": {
                "name": "multitask",
                "backbone": {"name": "windowed", "window": 3, "backbone": VIT},
                "heads": {"things": head},
            },
            "optimizer": {"name": "adamw", "lr": 3e-3, "layer_decay": 0.9, "schedule": "step"},
        },
        "data": {"name": "task_mixture", "datasets": {"things": {
            "name": "task_data", "batch_size": 4, "image_size": 48,
            "datasets": {"train": reader, "val": reader},
            "transforms": {"train": {"name": "jitter_crop", "size": 48, "scale": [0.8, 1.2]},
                           "val": {"name": "fit_inside", "size": 48}},
        }}},
        "trainer": {"max_epochs": 12, "accelerator": "cpu", "devices": 1, "log_every_n_steps": 1,
                    "num_sanity_val_steps": 0, "enable_model_summary": False,
                    "enable_progress_bar": False, "limit_val_batches": 0},
    }  # fmt: skip


@pytest.fixture
def encoder(tmp_path) -> Path:
    torch.manual_seed(0)
    vit = create_backbone(**VIT)
    checkpoint.export_encoder(vit, tmp_path / "mae_vit.safetensors")
    write_coco(tmp_path)
    return tmp_path / "mae_vit.safetensors"


def test_boxes_and_masks_have_their_columns(encoder, tmp_path, capsys):
    pytest.importorskip("faster_coco_eval")
    (tmp_path / "coco.yaml").write_text(yaml.safe_dump(config(tmp_path)))
    path = f"COCO={tmp_path / 'coco.yaml'}"
    out = tmp_path / "out"
    assert main(["transfer", str(encoder), "--config", path, "--output", str(out)]) == 0
    assert "| encoder | COCO AP box | COCO AP mask |" in capsys.readouterr().out
    runs = json.loads((out / "results.json").read_text())["runs"]
    found = {r["figure"]: r["percent"] for r in runs}
    assert found["coco_ap50"] > 5  # untrained heads find nothing
    assert found["coco_mask_ap50"] > 5
    assert {r["encoder"] for r in runs} == {"mae_vit"}


def test_data_without_masks_are_named_before_the_table(encoder, tmp_path, capsys):
    (tmp_path / "coco.yaml").write_text(yaml.safe_dump(config(tmp_path, masks=False)))
    arguments = ["--config", str(tmp_path / "coco.yaml"), "--output", str(tmp_path / "out")]
    assert main(["transfer", str(encoder), *arguments]) == 1
    assert "predicts instance masks, the data carry none" in capsys.readouterr().err
