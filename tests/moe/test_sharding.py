"""FSDP2 shards the experts, dimension 0, and the gradients stay those of one process."""

from pathlib import Path

import pytest
import timm
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from tests.ranks import on_ranks
from visionlab.moe import MoEVisionTransformer, insert_moe


def make() -> MoEVisionTransformer:
    torch.manual_seed(0)
    vit = timm.create_model(
        "vit_tiny_patch16_224",
        img_size=16,
        patch_size=8,
        embed_dim=32,
        depth=2,
        num_heads=2,
        num_classes=0,
        global_pool="",
    )
    return insert_moe(vit, num_experts=4, top_k=2, tasks=("cls", "seg"), attention=True)


def _rank(rank: int, folder: str) -> None:
    dist.init_process_group("gloo")
    mesh, model = init_device_mesh("cpu", (2,)), make()
    for block in model.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    images = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    model(images[2 * rank : 2 * rank + 2], task="cls").square().sum().backward()
    grads = {n: p.grad.full_tensor() for n, p in model.named_parameters() if p.grad is not None}
    local = {n: tuple(p.to_local().shape) for n, p in model.named_parameters()}
    if rank == 0:
        torch.save({"grads": grads, "local": local}, f"{folder}/out")
    dist.destroy_process_group()


@pytest.mark.slow
def test_fsdp2_on_two_processes_equals_one(tmp_path: Path) -> None:
    on_ranks(_rank, str(tmp_path))
    out = torch.load(tmp_path / "out", weights_only=True)
    assert out["local"]["vit.blocks.1.mlp.experts.0.w1"] == (2, 64, 32)  # 2 of 4 experts
    model = make()
    images = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    model(images, task="cls").square().sum().backward()
    expected = {n: p.grad / 2 for n, p in model.named_parameters() if p.grad is not None}
    assert out["grads"].keys() == expected.keys()
    for name, grad in expected.items():
        torch.testing.assert_close(out["grads"][name], grad, rtol=1e-4, atol=1e-5)
