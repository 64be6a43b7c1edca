"""Which experts a task uses: counted, reproducible, and without a trace on the model."""

import pytest
import torch

from tests.moe.small_model import TASKS, images, loader, make, measured
from visionlab.moe import (
    Usage,
    usage,
)


def test_usage_counts_and_leaves_the_model_alone() -> None:
    model = make().train()
    model.heads["det"].eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    found = measured(model)
    assert model.training
    assert not model.heads["det"].training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert found.layers == ["blocks.1.attn", "blocks.1.mlp", "blocks.3.attn", "blocks.3.mlp"]
    for counts, hard, soft in zip(found.counts, found.hard, found.soft, strict=True):
        assert counts.sum(1).tolist() == [2 * 4 * 17 * 2] * 3
        torch.testing.assert_close(hard.sum(1), torch.ones(3, dtype=torch.float64))
        torch.testing.assert_close(soft.sum(1), torch.ones(3, dtype=torch.float64))
    for kind in ("soft", "hard"):
        info = found.information(kind)
        assert (info["normalised"] >= 0).all()
        assert (info["normalised"] <= 1).all()
    assert found.as_dict()["tasks"] == list(TASKS)


def test_usage_takes_dicts_and_a_prepare_function() -> None:
    model = make()
    batches = [{"image": (images() * 40 + 128).clamp(0, 255).to(torch.uint8)}]
    with pytest.raises(TypeError, match="Pass prepare="):
        usage(model, batches, task="cls")
    found = usage(model, batches, task="cls", prepare=lambda b: b["image"].float() / 255)
    assert found.tasks == ["cls"]


def test_a_plain_loader_measures_every_task() -> None:
    model = make()
    found, one = usage(model, loader()), usage(model, {"det": loader()})
    assert found.tasks == list(TASKS)
    assert all(torch.equal(a[1], b[0]) for a, b in zip(found.counts, one.counts, strict=True))


def test_kept_by_count_and_by_share() -> None:
    counts = torch.tensor([[10, 0, 50, 0, 40]])
    found = Usage(["a"], ["x"], [[2]], [counts], [counts / 100])
    assert found.kept("a", keep=2) == [[2, 4]]
    assert found.kept("a", keep=0.9) == [[2, 4]]
    assert found.kept("a", keep=0.91) == [[0, 2, 4]]
    assert found.kept("a", keep=1.0) == [[0, 2, 4]]
    assert found.kept("a", keep=0.1) == [[2, 4]]  # never below k
