"""MoE attention against its definition."""

import pytest
import torch
from torch import nn

from visionlab.moe import MoEAttention


def make(heads: int = 1, backend: str = "auto", dtype: torch.dtype = torch.float64) -> MoEAttention:
    torch.manual_seed(0)
    layer = MoEAttention(16, 8, 5, 3, heads=heads, tasks=("cls", "seg"), backend=backend)
    for p in layer.parameters():
        nn.init.normal_(p, std=0.3)
    return layer.to(dtype)


def by_definition(layer: MoEAttention, x: torch.Tensor, task: str) -> torch.Tensor:
    """Every token, expert and head on its own."""
    (block,), router, d = layer.expert_blocks(), layer.routers[task], layer.head_dim
    out = torch.zeros_like(x)
    for b, tokens in enumerate(x):
        key, value = layer.key_value(tokens).view(len(tokens), 2, layer.heads, d).unbind(1)
        for n, token in enumerate(tokens):
            values, chosen = (router.weight @ token).topk(router.top_k)
            for g, e in zip(values.softmax(0), chosen, strict=True):
                query = (block.wq[e] @ token + block.bq[e]).view(layer.heads, d)
                context = [
                    ((key[:, h] @ query[h]) / d**0.5).softmax(0) @ value[:, h]
                    for h in range(layer.heads)
                ]
                out[b, n] += g * (block.wo[e] @ torch.cat(context) + block.bo[e])
    return out


@pytest.mark.parametrize("heads", [1, 2])
def test_output_is_the_gated_sum_of_attention_experts(heads: int) -> None:
    layer, x = make(heads), torch.randn(2, 6, 16, dtype=torch.float64)
    output, routing = layer(x, task="seg")
    torch.testing.assert_close(output, by_definition(layer, x, "seg"), rtol=1e-9, atol=1e-11)
    assert int(routing.counts().sum()) == 2 * 6 * 3


def test_gradcheck() -> None:
    layer = make(2)
    x = torch.randn(1, 4, 16, dtype=torch.float64, requires_grad=True)
    names = [n for n, _ in layer.named_parameters() if "seg" not in n]

    def run(x: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        given = dict(zip(names, values, strict=True))
        return torch.func.functional_call(layer, given, (x, "cls")).output

    values = [layer.get_parameter(n) for n in names]
    assert torch.autograd.gradcheck(run, (x, *values), fast_mode=True)


def test_backends_agree() -> None:
    results = []
    mask = torch.rand(2, 20, generator=torch.Generator().manual_seed(2)) > 0.3
    for backend in ("loop", "grouped_mm"):
        layer = make(backend=backend, dtype=torch.float32)
        x = torch.randn(2, 20, 16, generator=torch.Generator().manual_seed(1)).requires_grad_()
        y = layer(x, "cls", token_mask=mask).output
        y.square().sum().backward()
        results.append([y, x.grad, *(p.grad for p in layer.parameters() if p.grad is not None)])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_padding_changes_nothing() -> None:
    layer, x = make(), torch.randn(2, 9, 16, dtype=torch.float64)
    mask = torch.arange(9).expand(2, 9) < 6
    output, routing = layer(x, "cls", token_mask=mask)
    alone = layer(x[:, :6], "cls").output
    torch.testing.assert_close(output[:, :6], alone, rtol=1e-12, atol=1e-12)
    assert output[:, 6:].abs().max() == 0
    assert int(routing.counts().sum()) == 2 * 6 * 3


def test_bad_input_gets_one_clear_sentence() -> None:
    with pytest.raises(ValueError, match="head_dim and heads must be at least 1, got 4 and 0"):
        MoEAttention(16, 4, 4, 2, heads=0)
    layer = MoEAttention(16, 4, 4, 2)
    with pytest.raises(ValueError, match=r"needs tokens \(B, L, D\), got shape \(5, 16\)"):
        layer(torch.zeros(5, 16))
    assert layer(torch.zeros(0, 5, 16)).output.shape == (0, 5, 16)
