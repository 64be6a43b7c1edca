"""The Triton backends against the loop backend, and single kernels against plain torch."""

from typing import Any

import pytest
import torch
from torch import nn

from visionlab.moe import MoEAttention, MoELayer
from visionlab.moe.dispatch import make_plan

EXACT = {"rtol": 1e-5, "atol": 1e-5}


def step(layer: nn.Module, x: torch.Tensor, mask: torch.Tensor | None) -> dict[str, torch.Tensor]:
    """Output, routing and all gradients, also through the logits as an auxiliary loss sees them."""
    x = x.detach().requires_grad_()
    output, routing = layer(x, "seg", token_mask=mask)
    g = torch.Generator().manual_seed(3)
    weights = torch.randn(output.shape, generator=g).to(x.device)
    pull = torch.randn(routing.logits.shape, generator=g).to(x.device)
    if mask is not None:
        pull = pull * mask.reshape(-1, 1)
    ((output * weights).sum() + (routing.logits * pull).sum()).backward()
    grads = {n: p.grad for n, p in layer.named_parameters() if p.grad is not None}
    counts = {"counts": routing.counts(), "mean": routing.mean_probability()}
    return {"output": output, "logits": routing.logits, "dx": x.grad} | counts | grads


def layer_of(kind: str, experts: int, top_k: int, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    if kind == "mlp":
        layer: Any = MoELayer(48, 32, experts, top_k, tasks=("cls", "seg"), **options)
    else:
        layer = MoEAttention(48, 16, experts, top_k, heads=2, tasks=("cls", "seg"), **options)
    for p in layer.parameters():
        nn.init.normal_(p, std=0.2)
    return layer


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("kind", "backend", "experts", "top_k", "normalize", "masked"),
    [
        ("mlp", "fused", 6, 2, True, True),
        ("mlp", "triton", 6, 2, False, False),
        ("attention", "fused", 6, 2, True, True),
        pytest.param("mlp", "triton", 17, 5, True, True, marks=SLOW),
        pytest.param("mlp", "fused", 3, 3, False, False, marks=SLOW),
        pytest.param("attention", "triton", 17, 5, True, True, marks=SLOW),
        pytest.param("attention", "fused", 3, 3, False, False, marks=SLOW),
    ],
)
def test_triton_backends_equal_the_loop(
    kind: str,
    backend: str,
    experts: int,
    top_k: int,
    normalize: bool,
    masked: bool,
    device: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if device == "cuda" and backend == "fused":
        monkeypatch.setattr("visionlab.moe.backends._tuned_for", lambda *_: True)
    x = torch.randn(2, 21, 48, generator=torch.Generator().manual_seed(1)).to(device)
    mask = torch.rand(2, 21, generator=torch.Generator().manual_seed(2)).to(device) > 0.3
    got = []
    for b in ("loop", backend):
        layer = layer_of(kind, experts, top_k, backend=b, normalize_gates=normalize)
        if experts == 6:  # a pruned layer: one column leads nowhere, the ids are compact
            layer.keep_experts([0, 1, 3, 4, 5])
        got.append(step(layer.to(device), x, mask if masked else None))
    assert got[0].keys() == got[1].keys()
    for name, expected in got[0].items():
        torch.testing.assert_close(
            got[1][name], expected, msg=lambda m, n=name: f"{n}: {m}", **EXACT
        )


def test_empty_experts_and_skew(device: str) -> None:
    layers = {b: layer_of("mlp", 6, 2, backend=b).to(device) for b in ("loop", "triton")}
    x = torch.randn(41, 48, generator=torch.Generator().manual_seed(1)).to(device)
    x[:, 0] = 1.0
    got = {}
    for b, layer in layers.items():
        with torch.no_grad():
            layer.routers["seg"].weight.zero_()
            layer.routers["seg"].weight[:2, 0] = 9.0
        got[b] = step(layer, x, None)
    assert got["triton"]["counts"].tolist() == [41, 41, 0, 0, 0, 0]
    for name, expected in got["loop"].items():
        torch.testing.assert_close(got["triton"][name], expected, **EXACT)
    assert got["triton"]["experts.0.w1"][2:].abs().max() == 0


def test_repeats_are_bit_equal(device: str) -> None:
    layer = layer_of("mlp", 6, 2, backend="fused" if device == "cpu" else "triton").to(device)
    x = torch.randn(70, 48, generator=torch.Generator().manual_seed(1)).to(device)
    first, second = step(layer, x, None), None
    layer.zero_grad()
    second = step(layer, x, None)
    assert all(torch.equal(v, second[n]) for n, v in first.items())


def test_noise_is_added_in_training_only(device: str) -> None:
    layer = layer_of("mlp", 6, 2, backend="fused" if device == "cpu" else "triton", noise_std=2.0)
    layer, x = layer.to(device), torch.randn(20, 48, device=device)
    assert not torch.equal(layer(x, "seg").routing.logits, layer(x, "seg").routing.logits)
    layer.eval()
    a, b = layer(x, "seg"), layer(x, "seg")
    assert torch.equal(a.output, b.output)
    exact = x.double() @ layer.routers["seg"].weight.double().T
    torch.testing.assert_close(a.routing.logits.double(), exact, rtol=1e-5, atol=1e-5)


def test_counting_sort_equals_the_plain_sort(device: str) -> None:
    from visionlab.moe.kernels.routing import route

    g = torch.Generator().manual_seed(0)
    x, w = torch.randn(75, 32, generator=g).to(device), torch.randn(5, 32, generator=g).to(device)
    mask = torch.rand(75, generator=g).to(device) > 0.4
    columns = torch.arange(5, device=device)
    options = {"num_experts": 5, "top_k": 2, "normalize": True}
    r = route(x, w, columns, valid=mask, **options)
    plan = make_plan((x @ w.T).topk(2).indices, 5, mask)
    assert torch.equal(r.position.long(), plan.position)
    assert torch.equal(r.token.long(), plan.order // 2)
    assert torch.equal(r.offsets[:-1], plan.offsets[:-1])
    assert r.offsets[-1] == 150
    used = r.tiles[r.tiles[:, 0] >= 0]
    assert int((used[:, 2] - used[:, 1]).sum()) == 150
    assert torch.equal(used[1:, 1], used[:-1, 2])  # the tiles follow each other without a gap


@pytest.mark.gpu  # the interpreter has no bfloat16 products
def test_logits_of_bfloat16_tokens_are_exact_to_float32(device: str) -> None:
    from visionlab.moe.kernels.routing import route

    g = torch.Generator().manual_seed(0)
    x = torch.randn(40, 64, generator=g).to(device, torch.bfloat16)
    w = torch.randn(7, 64, generator=g).to(device)
    columns = torch.arange(7, device=device)
    r = route(x, w, columns, num_experts=7, top_k=2, normalize=True)
    exact = x.double() @ w.double().T
    torch.testing.assert_close(r.logits.double(), exact, rtol=1e-5, atol=1e-5)


def test_auto_with_the_interpreter_stays_on_the_loop(device: str) -> None:
    from visionlab.moe.backends import resolve_backend

    options = {"dtype": torch.float32, "widths": (48, 32)}
    assert resolve_backend("auto", device=torch.device("cpu"), **options) == "loop"
    assert resolve_backend("triton", device=torch.device(device), **options) == "triton"
