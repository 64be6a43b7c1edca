"""Every multi-task config builds small: a model of two blocks, its heads, its transforms."""

import copy
from pathlib import Path

import pytest
import torch
from torchvision import tv_tensors

from visionlab import config as configs
from visionlab.data.randomness import keyed_randomness

FOLDER = Path(__file__).resolve().parents[1] / "configs" / "moe"
NAMES = sorted(p.name for p in FOLDER.glob("*.yaml"))


def small(name: str) -> dict:
    """The config with a backbone of two blocks."""
    node = copy.deepcopy(configs.read(FOLDER / name))
    backbone = node["task"]["model"]["backbone"]
    backbone.get("backbone", backbone)["depth"] = 2
    return node


@pytest.mark.parametrize("name", NAMES)
def test_model_builds_and_every_head_runs(name):
    node = small(name)
    task = configs.build(node["task"], key="task").eval()
    assert task.model.tasks == list(node["data"]["datasets"])
    with torch.no_grad():
        for name_, data in node["data"]["datasets"].items():
            size = min(data["image_size"], 64)
            size = size if task.model.routed else data["image_size"]
            task.model.predict(torch.randn(1, 3, size, size), task=name_)


@pytest.mark.parametrize("name", NAMES)
def test_optimizer_covers_every_parameter(name):
    node = small(name)
    task = configs.build(node["task"], key="task")
    optimizer, _ = task.recipe.build(
        task.model_to_train(), images_per_step=8, steps=10, steps_per_epoch=5
    )
    count = sum(len(g["params"]) for g in optimizer.param_groups)
    assert count == len(list(task.model_to_train().parameters()))


@pytest.mark.parametrize("name", NAMES)
def test_transforms_give_the_size_that_is_batched(name):
    for data in configs.read(FOLDER / name)["data"]["datasets"].values():
        transforms = {
            split: configs.build(t, key="transform")
            for split, t in data.get("transforms", {}).items()
        }
        assert set(transforms) <= set(data["datasets"])
        for transform in transforms.values():
            with keyed_randomness(0):
                image = transform(sample_for(data))["image"]
            assert max(image.shape[-2:]) == data["image_size"]


def sample_for(data: dict) -> dict:
    """A sample of the kind that the task's readers give."""
    reader = data["datasets"]["train"]
    kind = (
        reader.get("kind")
        or {
            "image_folder": "classification",
            "coco_detection": "detection",
            "segmentation_folder": "segmentation",
        }[reader["name"]]
    )
    image = tv_tensors.Image(torch.zeros(3, 90, 120, dtype=torch.uint8))
    if kind == "classification":
        return {"image": image, "label": 1}
    if kind == "segmentation":
        return {"image": image, "mask": tv_tensors.Mask(torch.zeros(90, 120, dtype=torch.uint8))}
    box = tv_tensors.BoundingBoxes([[5.0, 5, 80, 60]], format="XYXY", canvas_size=(90, 120))
    return {"image": image, "boxes": box, "labels": torch.tensor([1]),
            "crowd": torch.tensor([False])}  # fmt: skip


def test_counterparts_have_equal_backbone_flops_and_samples():
    """What the README compares: k experts of width dense / k, the same batches of each task."""
    routed, dense = (configs.read(FOLDER / f"items_{n}.yaml") for n in ("in_the_wild", "dense"))
    backbone = routed["task"]["model"]["backbone"]
    inner = backbone["backbone"]
    assert inner == dense["task"]["model"]["backbone"]
    assert backbone["top_k"] * backbone["hidden_dim"] == 4 * inner["embed_dim"]
    assert routed["data"] == dense["data"]
    for task in ("digits", "boxes", "pixels"):
        alone = configs.read(FOLDER / f"items_single_task_{task}.yaml")
        assert alone["data"]["datasets"] == {task: dense["data"]["datasets"][task]}
        assert alone["data"]["steps_per_epoch"] == dense["data"]["steps_per_epoch"]
        assert alone["trainer"] == dense["trainer"]
        recipes = [{**c["task"]["optimizer"], "lr": 0} for c in (alone, dense)]
        assert recipes[0] == recipes[1]  # the rate is each one's own
        assert alone["task"]["model"]["backbone"] == inner
        assert alone["task"]["model"]["heads"][task] == dense["task"]["model"]["heads"][task]
