"""The rule for blocks, activation checkpointing, and what FSDP2 refuses; in one process."""

import copy

import pytest
import timm
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from visionlab import config as configs
from visionlab.backbones import create_backbone
from visionlab.masking import MaskedAutoencoder
from visionlab.moe import insert_moe
from visionlab.proximal import LearnedProximalNetwork
from visionlab.tasks.multitask import MultiTaskTraining
from visionlab.tasks.sharding import blocks, checkpoint_activations, is_sharded, shard


def small_vit(**options):
    return create_backbone("vit", img_size=16, patch_size=4, embed_dim=16, depth=3, num_heads=2,
                           **options)  # fmt: skip


def test_blocks_of_every_kind_of_network():
    vit = small_vit()
    assert len(list(blocks(vit))) == 3
    assert len(list(blocks(MaskedAutoencoder(vit, decoder="light")))) == 3 + 4
    moe = insert_moe(small_vit(), num_experts=4, top_k=2, layers="all")
    assert len(list(blocks(moe))) == 3
    resnet = timm.create_model("resnet18", num_classes=0)
    assert len(list(blocks(resnet))) == 8
    convnext = timm.create_model("convnext_atto", num_classes=0)
    assert len(list(blocks(convnext))) == 12
    assert not list(blocks(LearnedProximalNetwork(1, 4, strides=(1, 2))))


@pytest.mark.parametrize("moe", [False, True])
def test_recomputed_blocks_give_the_same_gradients(moe):
    torch.manual_seed(0)
    model = small_vit(drop_path_rate=0.3)
    if moe:
        model = insert_moe(model, num_experts=4, top_k=2, layers="all", attention=True)
    again = copy.deepcopy(model)
    assert checkpoint_activations(again) == 3
    images = torch.randn(4, 3, 16, 16)
    for each in (model.train(), again.train()):
        torch.manual_seed(1)  # stochastic depth
        each.forward_features(images).square().sum().backward()
    assert [n for n, _ in again.named_parameters()] == [n for n, _ in model.named_parameters()]
    for p, q in zip(model.parameters(), again.parameters()):
        torch.testing.assert_close(p.grad, q.grad)


def test_recomputing_keeps_less():
    torch.manual_seed(0)
    model = small_vit()
    images = torch.randn(8, 3, 16, 16)

    def kept(network) -> int:
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t: sizes.append(t.numel()) or t, lambda t: t
        ):
            network.forward_features(images)
        return sum(sizes)

    plain = kept(model)
    checkpoint_activations(model)
    assert kept(model) < plain / 3


def test_a_network_without_blocks_is_refused():
    with pytest.raises(ValueError, match=r"has no blocks.*trainer.activation_checkpointing=false"):
        checkpoint_activations(LearnedProximalNetwork(1, 4, strides=(1, 2)))


@pytest.fixture
def mesh(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


def multitask(**options) -> MultiTaskTraining:
    model = {"name": "multitask", "heads": {"a": {"name": "linear_classification", "dim": 16,
             "num_classes": 3}}, "backbone": {"name": "moe_vit", "tasks": ["a"], "layers": "all",
             "num_experts": 4, "top_k": 2, "backbone": {"name": "vit", "img_size": 16,
             "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2}}}  # fmt: skip
    return configs.build({"name": "multitask", "model": model, **options}, key="task")


def test_experts_are_cut_by_expert_and_the_rest_too(mesh):
    task = multitask()
    shard(task.model, mesh)
    assert is_sharded(task.model)
    assert all(isinstance(p, DTensor) for p in task.model.parameters())
    experts = task.model.get_parameter("backbone.vit.blocks.1.mlp.experts.0.w1")
    assert experts.shape[0] == 4
    assert experts.placements[0].dim == 0
    shard(task.model, mesh)  # a second time changes nothing


def test_learnt_task_weights_are_refused(mesh):
    task = multitask(weights="uncertainty")
    shard(task.model, mesh)
    task._trainer = type("NoTrainer", (), {"datamodule": None})()
    with pytest.raises(ValueError, match=r"fixed task.weights, or set trainer.strategy=ddp"):
        task._check_sharded()


def test_tasks_dealt_to_ranks_are_refused(mesh):
    task = multitask()
    data = type("Dealt", (), {"spread": True})()
    task._trainer = type("Trainer", (), {"datamodule": data})()
    with pytest.raises(ValueError, match=r"set data.spread=false, or trainer.strategy=ddp"):
        task._check_sharded()


@pytest.mark.parametrize("value", ["yes", 1, None])
def test_activation_checkpointing_is_true_or_false(value):
    config = {"task": "masked_pretraining", "data": "images",
              "trainer": {"activation_checkpointing": value}}  # fmt: skip
    errors = configs.check_names(config)
    assert any("activation_checkpointing: expected true or false" in e for e in errors)
