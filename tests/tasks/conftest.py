"""A masked pre-training on 40 generated images: seconds, and every part of a real run."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@pytest.fixture(scope="session")
def images(tmp_path_factory) -> Path:
    """40 images of 8x8 with 4 classes that differ in brightness."""
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 4
    pixels = rng.integers(0, 60, (40, 8, 8)) + labels[:, None, None] * 60
    path = tmp_path_factory.mktemp("images") / "images.npz"
    np.savez(path, images=pixels.astype(np.uint8), labels=labels)
    return path


@pytest.fixture
def tiny_config(images, tmp_path) -> dict[str, Any]:
    """Resolved config of a masked pre-training; tests change copies of it."""
    backbone = {"name": "vit", "img_size": 8, "patch_size": 2, "in_chans": 1, "embed_dim": 12,
                "depth": 2, "drop_path_rate": 0.2}  # fmt: skip
    dataset = {"name": "array_images", "path": str(images)}
    return copy.deepcopy({
        "seed": 3,
        "output": str(tmp_path / "run"),
        "task": {
            "name": "masked_pretraining",
            "model": {
                "name": "masked_autoencoder",
                "backbone": backbone,
                "mask": {"name": "green", "ratio": 0.75},
                "decoder": {"name": "light", "depth": 1, "dim": 16, "heads": 2},
            },
            "optimizer": {"name": "adamw", "lr": 0.01, "warmup_epochs": 0.5},
        },
        "data": {"name": "images", "datasets": {"train": dataset, "test": dataset},
                 "batch_size": 8, "mean": [0.5], "std": [0.25]},
        "trainer": {"max_epochs": 3, "accelerator": "cpu", "devices": 1, "log_every_n_steps": 1,
                    "checkpoint_every_n_steps": 2, "num_sanity_val_steps": 0,
                    "enable_model_summary": False, "enable_progress_bar": False},
    })  # fmt: skip
