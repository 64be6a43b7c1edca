"""A writer of YAML files and the least config of a run."""

import pytest
import yaml


@pytest.fixture
def write(tmp_path):
    def write(name="run.yaml", **content):
        (tmp_path / name).write_text(yaml.safe_dump(content), encoding="utf-8")
        return tmp_path / name

    return write


@pytest.fixture
def minimal():
    """``minimal(**model)``: the least config of a run, with further keys of the model."""

    def minimal(**model):
        return {
            "task": {
                "name": "finetuning",
                "model": {
                    "name": "image_classifier",
                    "num_classes": 3,
                    "backbone": {
                        "name": "vit", "img_size": 8, "patch_size": 4, "embed_dim": 6, "depth": 1
                    },
                    **model,
                },
            },
            "data": {"name": "images", "datasets": {}},
            "seed": 1,
        }  # fmt: skip

    return minimal
