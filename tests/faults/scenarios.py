"""Every task on tiny generated data: configs of runs that take about a second."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.tasks.multitask_fixture import config as multitask
from tests.tasks.multitask_fixture import write_archives

TASKS = ("pretraining", "probing", "finetuning", "proximal", "multitask", "rotation")
TRAINER = {"accelerator": "cpu", "devices": 1, "log_every_n_steps": 1, "num_sanity_val_steps": 0,
           "checkpoint_every_n_steps": 2, "enable_model_summary": False,
           "enable_progress_bar": False}  # fmt: skip
VIT = {"name": "vit", "img_size": 8, "patch_size": 2, "embed_dim": 12, "depth": 2}


def write_data(folder: Path) -> None:
    """Images in class folders, the same as arrays, labelled archives, and image sequences."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 4
    pixels = (rng.integers(0, 60, (40, 8, 8, 3)) + labels[:, None, None, None] * 60).astype("u1")
    np.savez(folder / "images.npz", images=pixels, labels=labels)
    for i, (picture, label) in enumerate(zip(pixels, labels)):
        path = folder / "images" / f"class{label}" / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)
    write_archives(folder)
    write_sequences(folder / "sequences")
    write_shards(folder / "images", folder / "packed")


def write_sequences(root: Path) -> None:
    """Three recordings of six frames with ground truth."""
    from visionlab.rotation.sequences import VirtualCamera

    photo = np.random.default_rng(7).integers(0, 255, (60, 80)).astype(np.uint8)
    photo = np.kron(photo, np.ones((8, 8), np.uint8))
    for seed, name in enumerate("abc"):
        VirtualCamera(photo, size=(160, 90), focal=140.0, frames=6, peak_deg=2.0, seed=seed).write(
            root / name
        )


def write_shards(images: Path, target: Path) -> None:
    """The images in five shards."""
    from visionlab.data.shards import pack
    from visionlab.data.shards.sources import image_folder

    pack(image_folder(images), target, samples_per_shard=8)


def config(
    task: str, data: Path, output: Path, *, workers: int = 0, nonfinite_limit: int | None = None
) -> dict[str, Any]:
    """Resolved config of one run; about 10 steps in 2 epochs."""
    if task == "multitask":
        made = multitask(data, output)
        made["trainer"] |= TRAINER | {"max_epochs": 3}
    else:
        section = SECTIONS["pretraining" if task == "shards" else task]
        made = {
            "seed": 3,
            "output": str(output),
            "task": dict(section),
            "data": sources(task, data),
            "trainer": TRAINER | {"max_epochs": 2},
        }
    if task == "rotation":
        made["evaluations"] = [{"name": "rotation_errors"}]
    if workers:
        made["data"]["num_workers"] = workers
    if nonfinite_limit is not None:
        made["task"]["nonfinite_limit"] = nonfinite_limit
    return made


def sources(task: str, data: Path) -> dict[str, Any]:
    """The ``data`` section."""
    if task == "proximal":
        return {"name": "laplacian", "batch_size": 32, "batches": 5}
    if task == "rotation":
        return {"name": "paths", "root": str(data / "sequences"), "pattern": "*"}
    arrays = {"name": "array_images", "path": str(data / "images.npz")}
    folder = {"name": "image_folder", "root": str(data / "images")}
    shards = {"name": "image_shards", "root": str(data / "packed")}
    datasets = {"pretraining": {"train": folder}, "shards": {"train": shards}}
    return {
        "name": "images",
        "datasets": datasets.get(task, {"train": arrays, "val": arrays}),
        "batch_size": 8,
        "unreadable_limit": 0,
    }


SECTIONS: dict[str, Any] = {
    "pretraining": {
        "name": "masked_pretraining",
        "model": {
            "name": "masked_autoencoder",
            "backbone": VIT | {"drop_path_rate": 0.2},
            "mask": {"name": "green", "ratio": 0.75},
            "decoder": {"name": "light", "depth": 1, "dim": 16, "heads": 2},
        },
        "optimizer": {"name": "adamw", "lr": 0.01, "warmup_epochs": 0.5},
    },
    "probing": {
        "name": "linear_probing",
        "model": {"name": "image_classifier", "num_classes": 4, "backbone": VIT,
                  "freeze_backbone": True, "norm": "batch"},
        "optimizer": {"name": "lars", "lr": 0.1, "warmup_epochs": 1},
    },
    "finetuning": {
        "name": "finetuning",
        "model": {"name": "image_classifier", "num_classes": 4,
                  "backbone": VIT | {"drop_path_rate": 0.1}},
        "optimizer": {"name": "adamw", "lr": 0.01, "layer_decay": 0.9},
    },
    "proximal": {
        "name": "proximal_matching",
        "model": {"name": "proximal_network", "noise_level": 1.0,
                  "backbone": {"name": "convex_mlp", "in_channels": 1, "hidden": 16, "depth": 2,
                               "beta": 10.0, "alpha": 1.0e-3}},
        "optimizer": {"name": "adam", "lr": 0.01},
        "pretrain_share": 0.5,
    },
    "rotation": {"name": "rotation", "flow": {"name": "lk"},
                 "estimator": {"name": "hough_recipe"}},
}  # fmt: skip
