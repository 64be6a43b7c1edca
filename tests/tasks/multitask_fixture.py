"""Three tiny archives in the true format and a config over them; used by several test files."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIDE, COUNT = 16, 12


def write_archives(folder: Path) -> None:
    """``a.npz`` (classes), ``b.npz`` (boxes), ``c.npz`` (masks): a bright square on dark noise."""
    rng = np.random.default_rng(0)
    labels, boxes, masks, buffers = [], [], [], []
    for i in range(COUNT):
        pixels = rng.integers(0, 60, (SIDE, SIDE, 3)).astype(np.uint8)
        label = i % 2
        x, y = rng.integers(1, 6, 2)
        side = 5 + 4 * label
        pixels[y : y + side, x : x + side, label] = 250
        mask = np.zeros((SIDE, SIDE), np.uint8)
        mask[y : y + side, x : x + side] = 1 + label
        mask[-1] = 255  # ignored
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
        buffers.append(np.frombuffer(buffer.getvalue(), np.uint8))
        labels.append(label)
        if i % 4:  # every fourth picture has no objects
            boxes.append([i, label, x, y, x + side, y + side])
        masks.append(mask)
    packed = {
        "jpeg": np.concatenate(buffers),
        "offset": np.cumsum([0, *(len(b) for b in buffers)]),
    }
    np.savez(folder / "a.npz", **packed, label=np.array(labels))
    np.savez(folder / "b.npz", **packed, boxes=np.array(boxes))
    np.savez(folder / "c.npz", **packed, mask=np.stack(masks))


def config(folder: Path, output: Path, *, moe: bool = True) -> dict[str, Any]:
    """A run of two epochs of three steps."""
    vit = {"name": "vit", "img_size": SIDE, "patch_size": 4, "embed_dim": 32, "depth": 2,
           "num_heads": 2}  # fmt: skip
    routed = {"name": "moe_vit", "backbone": vit, "tasks": ["a", "b", "c"], "layers": "all",
              "num_experts": 4, "top_k": 2}  # fmt: skip
    kinds = {"a": ("classification", 2, 4), "b": ("detection", 2, 3), "c": ("segmentation", 3, 3)}
    datasets = {}
    for task, (kind, classes, size) in kinds.items():
        reader = {"name": "packed_archive", "path": str(folder / f"{task}.npz"), "kind": kind,
                  "classes": classes}  # fmt: skip
        datasets[task] = {"name": "task_data", "batch_size": size, "image_size": SIDE,
                          "datasets": {"train": reader, "val": reader}}  # fmt: skip
    fcos = {"name": "fcos", "dim": 32, "num_classes": 2, "channels": 32, "scales": [1],
            "num_convs": 1}  # fmt: skip
    return {
        "seed": 3,
        "output": str(output),
        "task": {
            "name": "multitask",
            "model": {
                "name": "multitask",
                "backbone": routed if moe else vit,
                "heads": {
                    "a": {"name": "linear_classification", "dim": 32, "num_classes": 2},
                    "b": fcos,
                    "c": {"name": "linear_segmentation", "dim": 32, "num_classes": 3, "cells": 4},
                },
            },
            "optimizer": {"name": "adamw", "lr": 0.003},
            **({"routing": {"information": 0.1}} if moe else {}),
        },
        "data": {"name": "task_mixture", "datasets": datasets, "steps_per_epoch": 3},
        "trainer": {"max_epochs": 2, "accelerator": "cpu", "devices": 1, "log_every_n_steps": 1,
                    "checkpoint_every_n_steps": 1, "num_sanity_val_steps": 0,
                    "enable_model_summary": False, "enable_progress_bar": False},
    }  # fmt: skip
