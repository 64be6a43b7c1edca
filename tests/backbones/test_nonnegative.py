import copy
import pickle

import pytest
import torch

from visionlab.backbones.nonnegative import NonNegativeWeight
from visionlab.proximal.network import LearnedProximalNetwork


def push_down(net, optimizer):
    """One step that drives every weight towards minus infinity."""
    optimizer.zero_grad()
    sum(p.sum() for p in net.parameters()).backward()
    optimizer.step()


def constrained(net):
    return [m for m in net.modules() if isinstance(m, NonNegativeWeight)]


@pytest.mark.parametrize("constraint", ["project", "softplus", "square"])
@pytest.mark.parametrize(
    "optimizer", [torch.optim.Adam, torch.optim.SGD, torch.optim.AdamW, torch.optim.RMSprop]
)
def test_any_optimiser_leaves_them_nonnegative(constraint, optimizer):
    net = LearnedProximalNetwork(1, 3, strides=(1, 2), constraint=constraint)
    for _ in range(3):
        push_down(net, optimizer(net.parameters(), lr=0.5))
    assert all((m() >= 0).all() for m in constrained(net))
    assert min(p.min() for p in net.backbone.inputs.parameters()) < -0.5  # free ones went down


def test_an_optimiser_of_the_users_own_projects_too():
    class Plain(torch.optim.Optimizer):
        def __init__(self, params):
            super().__init__(params, {})

        def step(self, closure=None):
            for group in self.param_groups:
                for p in group["params"]:
                    p.data.sub_(10.0)

    weight = NonNegativeWeight((2, 3))
    Plain(weight.parameters()).step()
    assert torch.equal(weight(), torch.zeros(2, 3))


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_are_projected_too(clone):
    net = clone(LearnedProximalNetwork(1, 3, strides=(1, 2)))
    push_down(net, torch.optim.SGD(net.parameters(), lr=10.0))
    assert all((m.weight >= 0).all() for m in constrained(net))


def test_a_step_leaves_other_networks_alone():
    other, stepped = NonNegativeWeight((2, 2)), NonNegativeWeight((2, 2))
    with torch.no_grad():
        other.weight.fill_(-1.0)
    push_down(stepped, torch.optim.SGD(stepped.parameters(), lr=1.0))
    assert (other.weight == -1).all()


def test_initial_scales():
    torch.manual_seed(0)
    ours, official = NonNegativeWeight((64, 32, 3, 3)), NonNegativeWeight((64, 32), init="official")
    # each output keeps the scale of its inputs: the weights of one sum to about 1
    assert ours().flatten(1).sum(1).mean().item() == pytest.approx(1.0, rel=0.02)
    assert official().log().mean().item() == pytest.approx(-10.0, abs=0.02)
    for constraint in ("softplus", "square"):
        again = NonNegativeWeight((64, 32, 3, 3), constraint=constraint)
        assert again().flatten(1).sum(1).mean().item() == pytest.approx(1.0, rel=0.02)


def test_negative_weights_in_a_checkpoint_are_refused_and_nothing_is_changed():
    weight = NonNegativeWeight((2, 2))
    before = weight.weight.clone()
    state = {"weight": torch.tensor([[1.0, -0.25], [float("nan"), 2.0]])}
    with pytest.raises(ValueError, match=r"nonnegative.*2 entries that are not"):
        weight.load_state_dict(state)
    assert torch.equal(weight.weight, before)
    NonNegativeWeight((2, 2), constraint="square").load_state_dict({"weight": -torch.ones(2, 2)})


def test_wrong_names():
    with pytest.raises(ValueError, match="constraint is 'project', 'softplus' or 'square'"):
        NonNegativeWeight((2, 2), constraint="clip")
    with pytest.raises(ValueError, match="init is 'uniform' or 'official'"):
        NonNegativeWeight((2, 2), init="zeros")
