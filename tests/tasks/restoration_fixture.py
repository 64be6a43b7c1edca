"""Shared by the tests of restoration, certification and the learned prior: a tiny network."""

import argparse
from pathlib import Path
from types import ModuleType

import torch

from visionlab import checkpoint
from visionlab.backbones.convex import ConvexMLP
from visionlab.proximal import LearnedProximalNetwork, ProximalNetwork

SIZE = 24
ARGUMENTS = {"in_channels": 1, "hidden": 4, "strides": [1, 2], "noise_level": 0.1}


def smooth(count: int, *, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 1, 6, 6, generator=generator)
    return torch.nn.functional.interpolate(coarse, SIZE, mode="bicubic").clamp(0, 1)


def save_network(folder: Path) -> Path:
    torch.manual_seed(0)
    net = LearnedProximalNetwork(**ARGUMENTS)
    path = folder / "net.ckpt"
    checkpoint.save_model(net, path, {"name": "learned_proximal_network"} | ARGUMENTS)
    return path


def save_vectors(folder: Path) -> Path:
    """A network of vectors, as configs/proximal/laplacian.yaml trains."""
    torch.manual_seed(0)
    net = ProximalNetwork(ConvexMLP(1, 4, depth=1), noise_level=1.0)
    path = folder / "vectors.ckpt"
    backbone = {"name": "convex_mlp", "in_channels": 1, "hidden": 4, "depth": 1}
    model = {"name": "proximal_network", "backbone": backbone, "noise_level": 1.0}
    checkpoint.save_model(net, path, model)
    return path


def parse(module: ModuleType, *arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    return parser.parse_args(list(arguments))
