"""The least multi-task model with experts, for tests of what comes apart."""

import timm
import torch
from torch import nn

from visionlab.moe import MoEVisionTransformer, Usage, insert_moe, usage

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
