import math

import pytest
import torch

from visionlab.tasks.task_weights import FixedWeights, UncertaintyWeights, create_weights


def test_fixed_weights_scale():
    weights = FixedWeights(["a", "b"], {"a": 3})
    assert weights("a", torch.tensor(2.0)) == 6
    assert weights("b", torch.tensor(2.0)) == 2


@pytest.mark.parametrize("weight", [-1.0, float("nan")])
def test_weights_are_no_less_than_zero(weight):
    with pytest.raises(ValueError, match=r"the weight of 'a' is .*; expected 0 or more"):
        FixedWeights(["a"], {"a": weight})


def test_uncertainty_settles_where_theory_says():
    """The minimum of exp(-s) L + s / 2 lies at s = log(2 L)."""
    weights = UncertaintyWeights(["a"])
    optimizer = torch.optim.Adam(weights.parameters(), 0.05)
    for _ in range(400):
        optimizer.zero_grad()
        weights("a", torch.tensor(3.0)).backward()
        optimizer.step()
    assert weights.log_variance["a"].item() == pytest.approx(math.log(6), abs=0.01)


def test_uncertainty_is_finite_for_a_loss_of_zero():
    weights = UncertaintyWeights(["a"])
    with torch.no_grad():
        weights.log_variance["a"].fill_(-100)
    value = weights("a", torch.tensor(1.0))
    assert torch.isfinite(value)


def test_created_from_a_config():
    assert isinstance(create_weights(["a"], "uncertainty"), UncertaintyWeights)
    assert isinstance(create_weights(["a"], None), FixedWeights)
