"""Pruning, extending and freezing: what stays bit-equal, what composes, what a file keeps."""

from pathlib import Path

import pytest
import timm
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from visionlab.moe import (
    MoELayer,
    MoEVisionTransformer,
    Usage,
    adaptation_patterns,
    add_experts,
    add_task,
    backbone_flops,
    cost,
    cost_table,
    count_parameters,
    freeze_except,
    insert_moe,
    prune_to_task,
    set_top_k,
    usage,
)

TASKS = ("cls", "det", "seg")


class Model(nn.Module):
    """The least multi-task model: a MoE ViT and a head per task."""

    def __init__(self, vit: MoEVisionTransformer, tasks: tuple[str, ...]) -> None:
        super().__init__()
        self.backbone = vit
        self.heads = nn.ModuleDict({t: nn.Linear(vit.embed_dim, 3) for t in tasks})

    def forward(self, images: torch.Tensor, task: str) -> torch.Tensor:
        return self.heads[task](self.backbone.forward_features(images, task))


def dense() -> nn.Module:
    return timm.create_model(
        "vit_tiny_patch16_224",
        img_size=32,
        patch_size=8,
        embed_dim=48,
        depth=4,
        num_heads=3,
        num_classes=0,
        global_pool="",
    )


def make(**options: object) -> Model:
    torch.manual_seed(0)
    options = {"num_experts": 8, "top_k": 2, "attention": True, "attention_top_k": 2} | options
    model = Model(insert_moe(dense(), tasks=TASKS, **options), TASKS).eval()
    for p in model.parameters():
        nn.init.normal_(p, std=0.15)
    return model


def images(n: int = 4, seed: int = 1) -> torch.Tensor:
    return torch.randn(n, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def loader() -> list[torch.Tensor]:
    return [images(seed=s) for s in range(2)]


def outputs(model: Model, tasks: tuple[str, ...] = TASKS) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        return {t: model(images(), t).clone() for t in tasks}


def measured(model: Model) -> Usage:
    return usage(model, {t: loader() for t in TASKS})


def without_some_experts(model: Model) -> Model:
    """Routers that never choose experts 2 and 5."""
    with torch.no_grad():
        for _, layer in model.backbone.moe_layers():
            for router in layer.task_routers().values():
                router.expert_of_column.copy_(torch.tensor([0, 1, -1, 3, 4, -1, 6, 7]))
                router.remap([0, 1, -1, 3, 4, -1, 6, 7])
    return model


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


def counted_flops(model: Model, task: str) -> int:
    """torch's counter, over kernels that it sees: backend ``loop`` and unfused attention."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model.backbone(images(1), task=task)
    return counter.get_total_flops()


def test_less_computation_and_its_flops() -> None:
    model = make(attention=False)
    full = backbone_flops(model, "cls", (32, 32))
    assert full == counted_flops(model, "cls")
    set_top_k(model, "cls", 1)
    assert full - backbone_flops(model, "cls", (32, 32)) == 2 * 2 * 17 * 2 * 48 * 96
    assert backbone_flops(model, "seg", (32, 32)) == full
    assert model.backbone.blocks[1].mlp.top_k == {"cls": 1, "det": 2, "seg": 2}


def test_attention_flops_equal_the_counted_ones() -> None:
    model = make()
    assert backbone_flops(model, "cls", (32, 32)) == counted_flops(model, "cls")


def test_cost_table() -> None:
    model = make()
    costs = {}
    for way, patterns in adaptation_patterns(model, "det").items():
        freeze_except(model, patterns)
        costs[way] = cost(model, "det", (32, 32))
    assert costs["head"].trained < costs["routers and head"].trained < costs["all"].trained
    assert costs["all"].trained == costs["all"].total
    rows = cost_table(costs).splitlines()
    assert len(rows) == 2 + 3
    assert rows[-1].startswith("| all | ")
    assert "100.0 %" in rows[-1]


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
