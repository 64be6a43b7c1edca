"""k-NN and linear probe of a frozen encoder as rows of a table of transfer."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from visionlab import atomic, checkpoint
from visionlab import config as configs
from visionlab.data.images import ImageData
from visionlab.data.randomness import seed_all
from visionlab.heads.classifier import pool_features
from visionlab.tasks.frozen_features import (
    LabelledFeatures,
    extract_features,
    knn_accuracy,
    linear_probe_accuracy,
)
from visionlab.tasks.scores import uses_bf16


def check_images(data: Any, source: str) -> None:
    """Raise unless ``data`` are labelled images of one classification.

    Raises:
        ValueError: they are not.
    """
    if not isinstance(data, ImageData):
        raise ValueError(
            f"k-NN and probe need data of the kind 'images', {source} has {type(data).__name__}; "
            "name a classification config"
        )


def write_frozen_scores(config: Mapping[str, Any], data: ImageData, folder: Path) -> None:
    """Score the backbone of a classification config, untouched, and write ``results.json``.

    Args:
        config: of a classifier; its backbone is built with the weights that it names.
        data: its data; "train" serves as bank and as training set of the probe.
        folder: of config and results.
    """
    from visionlab.tasks.training import write_config

    seed = int(config.get("seed", 0))
    seed_all(seed)
    model = configs.build(config["task"]["model"], key="model")
    split = config["evaluations"][0]["split"]
    train, test = (features(model, data, s, bf16=uses_bf16(config)) for s in ("train", split))
    figures = {
        "knn": knn_accuracy(train, test),
        "probe": linear_probe_accuracy(train, test, epochs=20, seed=seed),
    }
    rows = [
        {"task": "classes", "kind": "frozen", "figure": f, "percent": round(100 * v, 4)}
        for f, v in figures.items()
    ]
    folder.mkdir(parents=True, exist_ok=True)
    write_config(config, folder / "config.yaml")
    atomic.write_text(
        json.dumps(checkpoint.plain({"Scores": rows}), indent=2), folder / "results.json"
    )


def features(model: Any, data: ImageData, split: str, *, bf16: bool) -> LabelledFeatures:
    """Pooled features of a split under the classifier's own pooling."""
    backbone = model.backbone.eval()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    backbone.to(device)

    def encode(images: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            return pool_features(backbone, data.normalise(images.to(device)), model.pool)

    return extract_features(encode, data.loader(split))
