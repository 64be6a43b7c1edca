"""What only a CUDA device can show: bfloat16, no host synchronisation, graph capture."""

import copy

import pytest
import torch
from torch import nn

from visionlab.moe import MoEAttention, MoELayer

pytestmark = pytest.mark.gpu


def layer_of(kind: str, backend: str) -> nn.Module:
    torch.manual_seed(0)
    if kind == "mlp":
        layer: nn.Module = MoELayer(384, 768, 16, 2, backend=backend)
    else:
        layer = MoEAttention(384, 64, 16, 6, backend=backend)
    return layer.cuda()


@pytest.mark.parametrize("kind", ["mlp", "attention"])
@pytest.mark.parametrize("backend", ["fused", "triton", "grouped_mm"])
def test_bfloat16_follows_the_float32_loop(kind: str, backend: str) -> None:
    x = torch.randn(8, 197, 384, device="cuda")
    exact = layer_of(kind, "loop").double()
    fast = layer_of(kind, backend)
    results = []
    for layer, tokens in ((exact, x.double()), (fast, x)):
        leaf = tokens.clone().requires_grad_()
        with torch.autocast("cuda", torch.bfloat16, enabled=layer is fast):
            y = layer(leaf).output
        y.double().square().sum().backward()
        results.append([y, leaf.grad, *(p.grad for p in layer.parameters())])
    for a, b in zip(*results, strict=True):
        assert (a - b).double().norm() <= 2e-2 * a.double().norm()


@pytest.mark.parametrize("backend", ["fused", "triton", "grouped_mm"])
def test_no_host_synchronisation_and_graph_capture(backend: str) -> None:
    layer = layer_of("mlp", backend).bfloat16()
    x = torch.randn(1024, 384, device="cuda", dtype=torch.bfloat16).requires_grad_()
    grad = torch.randn_like(x)
    parameters = [x, *layer.parameters()]

    def step() -> tuple[torch.Tensor, ...]:
        y = layer(x).output
        return y, *torch.autograd.grad(y, parameters, grad)

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        expected = copy.deepcopy([t.detach() for t in step()])  # compiles
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    graph.replay()
    torch.cuda.synchronize()
    assert all(torch.equal(a, b) for a, b in zip(captured, expected, strict=True))
