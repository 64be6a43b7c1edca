"""Pruning, extending and freezing: what stays bit-equal, what composes, what a file keeps."""

from pathlib import Path

import pytest
import torch
from torch import nn

from tests.moe.small_model import (
    TASKS,
    Model,
    dense,
    images,
    loader,
    make,
    measured,
    outputs,
    without_some_experts,
)
from visionlab.moe import (
    MoELayer,
    adaptation_patterns,
    add_experts,
    add_task,
    count_parameters,
    freeze_except,
    insert_moe,
    prune_to_task,
    set_top_k,
    usage,
)


def test_pruning_unused_experts_is_bit_equal() -> None:
    model = without_some_experts(make())
    found = measured(model)
    before = outputs(model)
    size = count_parameters(model).total
    for task in TASKS:
        pruned = prune_to_task(model, task, keep=found)
        assert torch.equal(pruned(images(), task), before[task])
        for _, layer in pruned.backbone.moe_layers():
            assert layer.num_experts <= 6
        assert pruned.backbone.tasks == list(pruned.heads) == [task]
        assert count_parameters(pruned).total < size
    assert model.backbone.tasks == list(TASKS)  # the original is whole
    assert torch.equal(model(images(), "cls"), before["cls"])


def test_pruning_used_experts_keeps_the_routers_scale() -> None:
    model = make()
    pruned = prune_to_task(model, "seg", keep=4, usage=measured(model))
    assert {x.num_experts for _, x in pruned.backbone.moe_layers()} == {4}
    compact = prune_to_task(model, "seg", keep=4, usage=measured(model), compact_router=True)
    torch.testing.assert_close(
        pruned(images(), "seg"), compact(images(), "seg"), rtol=1e-4, atol=1e-5
    )
    assert compact.backbone.blocks[1].mlp.routers["seg"].weight.shape[0] == 4


def test_experts_of_chosen_tasks_are_combined() -> None:
    model = without_some_experts(make())
    found, before = measured(model), outputs(model)
    both = prune_to_task(model, ["cls", "seg"], keep=1.0, usage=found)
    for task in ("cls", "seg"):
        assert torch.equal(both(images(), task), before[task])
    assert list(both.heads) == ["cls", "seg"]
    # a new task over the experts that two others use most
    chosen = found.kept(["cls", "seg"], keep=2)
    add_task(model, "new", head=nn.Linear(48, 2), experts=chosen)
    for (_, layer), ids in zip(model.backbone.moe_layers(), chosen, strict=True):
        assert layer.routers["new"].selectable == ids
    model(images(), "new")
    # or starting from the mean of their routers
    add_task(model, "mean", head=nn.Linear(48, 2), source=["cls", "seg"])
    layer = model.backbone.blocks[1].mlp
    both_rows = torch.stack([layer.routers[t].weight[3] for t in ("cls", "seg")])
    i = layer.routers["mean"].columns.index(3)
    torch.testing.assert_close(layer.routers["mean"].weight[i], both_rows.mean(0))


def train(model: Model, task: str, optimizer: torch.optim.Optimizer, steps: int = 5) -> None:
    for step in range(steps):
        optimizer.zero_grad()
        model.train()
        model(images(seed=10 + step), task).square().sum().backward()
        optimizer.step()
    model.eval()


@pytest.mark.parametrize("way", ["routers and head", "new experts, routers and head"])
@pytest.mark.parametrize("stale", [False, True])
def test_old_tasks_stay_bit_equal_after_training_a_new_one(way: str, stale: bool) -> None:
    model = make()
    if stale:  # gradients of an earlier training lie around
        model(images(), "cls").sum().backward()
    before = outputs(model)
    add_experts(model, 4)
    add_task(model, "new", head=nn.Linear(48, 2))
    assert all(torch.equal(v, before[t]) for t, v in outputs(model).items())
    first = model(images(), "new").clone()
    trained, total = freeze_except(model, adaptation_patterns(model, "new")[way])
    assert 0 < trained < total / 2
    # the worst case: every parameter in the optimizer, weight decay and momentum on
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    train(model, "new", optimizer)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9, weight_decay=0.1)
    train(model, "new", optimizer)
    assert not torch.equal(model(images(), "new"), first)
    assert all(torch.equal(v, before[t]) for t, v in outputs(model).items())


def test_a_new_task_uses_the_new_experts_and_old_ones_cannot() -> None:
    model = add_task(add_experts(make(), 4), "new", head=nn.Linear(48, 2))
    found = usage(model, {t: loader() for t in (*TASKS, "new")})
    for counts in found.counts:
        assert counts.shape[1] == 12
        assert counts[:3, 8:].sum() == 0
        assert counts[3, 8:].sum() > 0


def test_freezing_really_freezes() -> None:
    model = make()
    frozen = {n: p.clone() for n, p in model.named_parameters() if "routers.seg" not in n}
    trained, total = freeze_except(model, "*routers.seg.*")
    assert trained == 4 * 8 * 48
    assert total == sum(p.numel() for p in model.parameters())
    train(model, "seg", torch.optim.AdamW(model.parameters(), 0.01, weight_decay=0.05))
    now = dict(model.named_parameters())
    assert all(torch.equal(p, now[n]) for n, p in frozen.items())


def rebuilt(model: Model, path: Path) -> Model:
    """Save, then build from the layout and load strictly."""
    torch.save({"weights": model.state_dict(), "layout": model.backbone.layout}, path)
    file = torch.load(path, weights_only=True)
    vit = insert_moe(dense(), num_experts=8, top_k=2, layout=file["layout"])
    new = Model(vit, tuple(model.heads))
    for task, head in model.heads.items():
        new.heads[task] = nn.Linear(head.in_features, head.out_features)
    new.load_state_dict(file["weights"])
    return new.eval()


def test_calls_compose_and_survive_save_and_load(tmp_path: Path) -> None:
    model = without_some_experts(make())
    model = prune_to_task(model, ["cls", "seg"], keep=1.0, usage=measured(model))
    before = outputs(model, ("cls", "seg"))
    add_experts(model, 3)
    add_task(model, "new", head=nn.Linear(48, 5), top_k=3)
    add_experts(model, 2)
    add_task(model, "more", head=nn.Linear(48, 2), source="new")
    model = rebuilt(model, tmp_path / "grown.pt")
    assert all(torch.equal(v, before[t]) for t, v in outputs(model, ("cls", "seg")).items())
    set_top_k(model, "new", 2, layers="*.mlp")
    found = usage(model, {"new": loader()})
    small = prune_to_task(model, "new", keep=1.0, usage=found)
    again = rebuilt(small, tmp_path / "pruned.pt")
    expected = model(images(seed=0), "new")
    assert torch.equal(small(images(seed=0), "new"), expected)
    assert torch.equal(again(images(seed=0), "new"), expected)
    with pytest.raises(ValueError, match="the checkpoint has other experts"):
        make().backbone.load_state_dict(small.backbone.state_dict())


def test_surgery_on_a_bare_layer() -> None:
    layer, x = MoELayer(16, 8, 4, 2, tasks=("a", "b")), torch.randn(5, 16)
    before = layer(x, "a").output
    add_task(add_experts(layer, 2), "c", source="a")
    assert torch.equal(layer(x, "a").output, before)
    assert torch.equal(layer(x, "c").output, before)
    assert layer.layout["experts"] == [4, 2]
    small = prune_to_task(layer, "a", keep=[[0, 1, 2, 3]])
    assert torch.equal(small(x, "a").output, before)
    assert small.tasks == ["a"]


def test_bad_input_gets_one_clear_sentence() -> None:
    model = make()
    found = measured(model)
    with pytest.raises(ValueError, match=r"no task 'sgg' in this model. Did you mean 'seg'"):
        prune_to_task(model, "sgg", keep=4, usage=found)
    with pytest.raises(ValueError, match=r"keep=1 experts in layer 'blocks.1.attn', which has 8"):
        prune_to_task(model, "seg", keep=1, usage=found)
    with pytest.raises(ValueError, match="keeping 1 experts is fewer than top_k=2"):
        prune_to_task(model, "seg", keep=[[0]] * 4)
    with pytest.raises(ValueError, match="no expert 99 in this layer; its experts are 0 to 7"):
        prune_to_task(model, "seg", keep=[[0, 1, 99]] * 4)
    with pytest.raises(ValueError, match=r"one list for each MoE layer, got \[0, 1\]"):
        prune_to_task(model, "seg", keep=[0, 1])
    with pytest.raises(ValueError, match="at least one task to keep"):
        prune_to_task(model, [], keep=found)
    with pytest.raises(ValueError, match=r"measured on layers of \[8, 8, 8, 8\] experts"):
        prune_to_task(add_experts(make(), 1), "seg", keep=found)
    with pytest.raises(ValueError, match="no expert -1 in this layer"):
        add_task(model.backbone, "new", experts=[[0, 1, -1]] * 4)
    with pytest.raises(ValueError, match=r"share in \(0, 1\] \(float\), got 1.5"):
        prune_to_task(model, "seg", keep=1.5, usage=found)
    with pytest.raises(ValueError, match=r"pass usage=visionlab.moe.usage\(model, loader\)"):
        prune_to_task(model, "seg", keep=4)
    with pytest.raises(ValueError, match="task 'cls' exists already"):
        add_task(model, "cls", head=nn.Linear(48, 2))
    with pytest.raises(ValueError, match="task 'cls' exists already"):
        add_task(model.backbone, "cls")
    with pytest.raises(ValueError, match="the model has heads, pass head="):
        add_task(model, "new")
    with pytest.raises(ValueError, match="top_k=99, but the router can choose among 8"):
        add_task(model, "new", head=nn.Linear(48, 2), top_k=99)
    assert model.backbone.tasks == list(model.heads) == list(TASKS)
    with pytest.raises(ValueError, match="top_k=9, but the router can choose among 8 experts"):
        set_top_k(model, "cls", 9)
    with pytest.raises(ValueError, match=r"no MoE layer matches '\*.mpl'"):
        set_top_k(model, "cls", 1, layers="*.mpl")
    with pytest.raises(ValueError, match=r"no parameter matches 'rooters"):
        freeze_except(model, "rooters.*")
    with pytest.raises(ValueError, match="add_experts needs n >= 1"):
        add_experts(model, 0)
    with pytest.raises(ValueError, match="Linear contains no MoE ViT"):
        usage(nn.Linear(2, 2), loader())
    with pytest.raises(ValueError, match="Linear has no MoE layer"):
        add_experts(nn.Linear(2, 2), 2)
    with pytest.raises(ValueError, match="the loader of task 'cls' gave no batch"):
        usage(model, [], task="cls")
    with pytest.raises(TypeError, match=r"got Tensor, for one batch of images pass \[images\]"):
        usage(model, images())
    with pytest.raises(TypeError, match="got an empty mapping"):
        usage(model, {})
