"""What every task shares: clipping under each precision."""

import copy
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.plugins.precision import MixedPrecision, Precision
from torch import nn

from visionlab.tasks import training
from visionlab.tasks.base import Task

sys.path.insert(0, str(Path(__file__).parent))
from multitask_fixture import config, write_archives

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers.*", "ignore:.*treespec, LeafSpec.*:FutureWarning"
)


def clipped(precision: Precision, limit: float, algorithm: str | None = None) -> torch.Tensor:
    task = Task(nn.Linear(3, 1, bias=False))
    task.model.weight.grad = torch.tensor([[3.0, 4.0, 0.0]])
    optimizer = torch.optim.AdamW(task.parameters(), fused=True)
    task._trainer = SimpleNamespace(
        precision_plugin=precision, gradient_clip_val=None, gradient_clip_algorithm=None
    )
    task.clip_gradients(optimizer, limit, algorithm)
    return task.model.weight.grad[0]


@pytest.mark.parametrize("precision", [Precision(), MixedPrecision("bf16-mixed", "cpu")])
def test_gradients_are_clipped(precision):
    torch.testing.assert_close(clipped(precision, 1.0), torch.tensor([0.6, 0.8, 0.0]))
    torch.testing.assert_close(clipped(precision, 2.0, "value"), torch.tensor([2.0, 2.0, 0.0]))
    assert clipped(precision, 0.0).tolist() == [3, 4, 0]


def test_scaled_gradients_are_not_clipped():
    scaled = MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu"))
    with pytest.raises(ValueError, match=r"cannot be clipped at 1\.0 under fp16"):
        clipped(scaled, 1.0)
    assert clipped(scaled, 0.0).tolist() == [3, 4, 0]


def test_runs_that_clip_under_bf16(tiny_config, tmp_path):
    write_archives(tmp_path)
    several = config(tmp_path, tmp_path / "several")
    several["task"]["gradient_clip"] = 1.0
    one = copy.deepcopy(tiny_config)
    one["trainer"]["gradient_clip_val"] = 1.0
    for node in (one, several):
        node["trainer"] |= {"precision": "bf16-mixed", "max_epochs": 1, "limit_val_batches": 0}
        assert (training.run(node) / "results.json").is_file()
