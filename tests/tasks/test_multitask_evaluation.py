"""A model is scored in eval mode and left in its own."""

import pytest
import torch
from torch import nn

from visionlab.tasks.multitask_evaluation import evaluating


def test_every_module_gets_its_own_mode_back_also_after_an_error():
    model = nn.Sequential(nn.Dropout(), nn.Sequential(nn.BatchNorm1d(2), nn.Dropout())).train()
    model[1][0].eval()  # frozen statistics
    modes = [m.training for m in model.modules()]
    with evaluating(model):
        assert not any(m.training for m in model.modules())
        assert torch.equal(model(torch.ones(3, 2)), model(torch.ones(3, 2)))
    assert [m.training for m in model.modules()] == modes
    with pytest.raises(RuntimeError), evaluating(model):
        raise RuntimeError
    assert [m.training for m in model.modules()] == modes
