"""Every transfer config builds small: model, optimiser, transforms; upcycling is exact."""

import copy
from pathlib import Path

import pytest
import torch
from torchvision import tv_tensors

from visionlab import config as configs
from visionlab.data.randomness import keyed_randomness
from visionlab.heads import MultiTaskModel
from visionlab.tasks.optimizers import names_of

FOLDER = Path(__file__).resolve().parents[1] / "configs" / "transfer"
NAMES = sorted(p.name for p in FOLDER.glob("*.yaml"))
HEADS = [n for n in NAMES if "heads" in configs.read(FOLDER / n)["task"]["model"]]


def small(name: str) -> dict:
    """The config with a backbone of width 32; the depth stays, since heads name blocks."""
    node = copy.deepcopy(configs.read(FOLDER / name))
    model = node["task"]["model"]
    inner = model["backbone"]
    while "backbone" in inner:
        inner = inner["backbone"]
    if inner["name"] == "moe_vit_base":
        inner |= {"depth": 2, "num_experts": 4, "top_k": 4}
        return node
    depth = inner.get("depth", 12)
    size = inner.get("img_size", 224)
    drop = inner.get("drop_path_rate", 0.0)
    inner.clear()
    inner |= {"name": "vit", "img_size": min(size, 256), "patch_size": 16 if size > 32 else 4,
              "embed_dim": 32, "depth": depth, "num_heads": 2, "drop_path_rate": drop,
              "dynamic_img_size": True}  # fmt: skip
    if "hidden_dim" in model["backbone"]:
        model["backbone"]["hidden_dim"] = 64
    for head in model.get("heads", {}).values():
        head["dim"] = 32
    return node


@pytest.mark.parametrize("name", HEADS)
def test_every_head_runs_on_the_pictures_of_its_config(name):
    node = small(name)
    task = configs.build(node["task"], key="task").eval()
    assert isinstance(task.model, MultiTaskModel)
    assert task.model.tasks == list(node["data"]["datasets"])
    for task_name, data in node["data"]["datasets"].items():
        side = data["image_size"]
        side = min(side if isinstance(side, int) else side["val"], 256)
        images = torch.randn(1, 3, side, side)
        found = task.model.predict(images, task=task_name)
        assert len(found) == 1


@pytest.mark.parametrize("name", NAMES)
def test_the_optimizer_covers_what_is_trained(name):
    task = configs.build(small(name)["task"], key="task")
    model = task.model_to_train()
    optimizer, _ = task.recipe.build(model, images_per_step=8, steps=10, steps_per_epoch=5)
    covered = set().union(*names_of(optimizer.param_groups, model))
    assert covered == {n for n, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("name", HEADS)
def test_transforms_give_what_is_batched(name):
    for data in configs.read(FOLDER / name)["data"]["datasets"].values():
        reader = data["datasets"]["train"]
        for split, transform in data.get("transforms", {}).items():
            side = data["image_size"]
            side = side if isinstance(side, int) else side[split]
            with keyed_randomness(0):
                sample = configs.build(transform, key="transform")(sample_for(reader))
            longest = max(sample["image"].shape[-2:])
            assert longest == side or (transform["name"] == "shorter_side" and longest <= side)


def sample_for(reader: dict) -> dict:
    """A sample of the kind that a reader gives."""
    image = tv_tensors.Image(torch.zeros(3, 90, 120, dtype=torch.uint8))
    kind = reader.get("kind", {"coco_detection": "detection", "segmentation_folder": "segmentation",
                               "image_folder": "classification"}.get(reader["name"]))  # fmt: skip
    if kind == "classification":
        return {"image": image, "label": 1}
    if kind == "segmentation":
        return {"image": image, "mask": tv_tensors.Mask(torch.zeros(90, 120, dtype=torch.uint8))}
    box = tv_tensors.BoundingBoxes([[5.0, 5, 80, 60]], format="XYXY", canvas_size=(90, 120))
    return {"image": image, "boxes": box, "labels": torch.tensor([1]),
            "crowd": torch.tensor([False]),
            "masks": tv_tensors.Mask(torch.ones(1, 90, 120, dtype=torch.uint8))}  # fmt: skip


@pytest.mark.parametrize("name", [n for n in NAMES if n.startswith("upcycled")])
def test_upcycled_experts_give_what_the_dense_vit_gave(name, tmp_path):
    from visionlab import checkpoint
    from visionlab.backbones import create_backbone

    node = small(name)["task"]["model"]
    sizes = (
        {"img_size": 224, "patch_size": 16, "embed_dim": 768, "depth": 2, "num_heads": 12}
        if node["backbone"]["name"] == "moe_vit_base"
        else {k: v for k, v in node["backbone"]["backbone"].items() if k != "name"}
    )
    torch.manual_seed(1)
    dense = create_backbone("vit", **{**sizes, "dynamic_img_size": True}).eval()
    checkpoint.export_encoder(dense, tmp_path / "dense.safetensors")
    inner = node["backbone"].get("backbone", node["backbone"])
    inner["checkpoint_path"] = str(tmp_path / "dense.safetensors")
    model = configs.build(node, key="model").eval()
    side = sizes["patch_size"] * 4
    images = torch.randn(2, 3, side, side)
    expected = dense.forward_features(images)
    for task in model.tasks:
        found = model.features(images, task=task).tokens
        assert torch.allclose(found, expected, atol=2e-4), task


def test_the_small_runs_share_one_encoder_and_their_pretraining_has_it():
    names = ["pretrain_cifar10", "cls_cifar10", "frozen_cifar10", "seg_camvid", "det_coco"]
    nodes = [configs.read(FOLDER / f"{n}.yaml")["task"]["model"]["backbone"] for n in names]
    moe = configs.read(FOLDER / "upcycled_shared_data.yaml")["task"]["model"]["backbone"]
    assert all(n == nodes[0] for n in [*nodes, moe["backbone"]])
