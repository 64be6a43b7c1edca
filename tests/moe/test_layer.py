"""The MoE MLP layer against its definition, and its promises."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from visionlab.moe import MoELayer


def by_definition(layer: MoELayer, x: torch.Tensor, task: str) -> torch.Tensor:
    """One token at a time, straight from the formula."""
    (block,) = layer.expert_blocks()
    router = layer.routers[task]
    out = []
    for token in x.flatten(0, -2):
        logits = router.weight @ token
        values, chosen = logits.topk(router.top_k)
        gates = values.softmax(0) if router.normalize else logits.softmax(0)[chosen]
        y = torch.zeros_like(token)
        for g, e in zip(gates, chosen, strict=True):
            h = F.gelu(block.w1[e] @ token + block.b1[e])
            y = y + g * (block.w2[e] @ h + block.b2[e])
        out.append(y)
    return torch.stack(out).view_as(x)


def make(dtype: torch.dtype = torch.float64, **options: object) -> MoELayer:
    torch.manual_seed(0)
    layer = MoELayer(16, 32, 6, 2, tasks=("cls", "seg"), **options)
    for p in layer.parameters():  # biases too, and logits that differ
        nn.init.normal_(p, std=0.3)
    return layer.to(dtype)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("task", ["cls", "seg"])
def test_output_is_the_gated_sum_of_experts(task: str, normalize: bool) -> None:
    layer = make(normalize_gates=normalize)
    x = torch.randn(2, 7, 16, dtype=torch.float64)
    output, routing = layer(x, task=task)
    torch.testing.assert_close(output, by_definition(layer, x, task), rtol=1e-10, atol=1e-12)
    assert routing.task == task
    assert routing.experts.shape == (14, 2)
    assert int(routing.counts().sum()) == 28


def test_tasks_route_differently() -> None:
    layer, x = make(), torch.randn(40, 16, dtype=torch.float64)
    assert not torch.equal(layer(x, "cls").routing.experts, layer(x, "seg").routing.experts)


@pytest.mark.parametrize("masked", [False, True])
def test_gradcheck_in_float64(masked: bool) -> None:
    layer = make(backend="loop")
    x = torch.randn(9, 16, dtype=torch.float64, requires_grad=True)
    mask = torch.arange(9) < 6 if masked else None
    names = [n for n, _ in layer.named_parameters() if "seg" not in n]
    values = [layer.get_parameter(n) for n in names]

    def run(x: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        given = dict(zip(names, values, strict=True))
        return torch.func.functional_call(layer, given, (x, "cls"), {"token_mask": mask}).output

    assert torch.autograd.gradcheck(run, (x, *values), fast_mode=True)


def test_float32_backends_agree() -> None:
    loop, grouped = make(torch.float32, backend="loop"), make(torch.float32, backend="grouped_mm")
    mask = torch.rand(3, 50) > 0.2
    results = []
    for layer in (loop, grouped):
        x = torch.randn(3, 50, 16, generator=torch.Generator().manual_seed(1)).requires_grad_()
        y = layer(x, "seg", token_mask=mask).output
        y.sum().backward()  # an expanded gradient, which grouped_mm alone refuses
        results.append([y, x.grad, *(p.grad for p in layer.parameters() if p.grad is not None)])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_no_token_is_dropped_at_a_skew_of_1000_to_1() -> None:
    layer = make()
    with torch.no_grad():
        layer.routers["cls"].weight.zero_()
        layer.routers["cls"].weight[:2, 0] = 10.0  # experts 0 and 1 take every token ...
        layer.routers["cls"].weight[2:4, 0] = -10.0  # ... but those with a negative first entry
    x = torch.randn(1001, 16, dtype=torch.float64)
    x[:, 0] = 1.0
    x[500, 0] = -1.0
    output, routing = layer(x, task="cls")
    assert routing.counts().tolist() == [1000, 1000, 1, 1, 0, 0]
    torch.testing.assert_close(output, by_definition(layer, x, "cls"), rtol=1e-9, atol=1e-9)


def test_masked_tokens_reach_no_expert_and_give_zeros() -> None:
    layer, x = make(), torch.randn(2, 8, 16, dtype=torch.float64)
    mask = torch.ones(2, 8, dtype=torch.bool)
    mask[:, 5:] = False
    output, routing = layer(x, "cls", token_mask=mask)
    assert torch.equal(output[:, 5:], torch.zeros(2, 3, 16))
    assert torch.equal(output[:, :5], layer(x[:, :5], "cls").output)
    assert int(routing.counts().sum()) == 2 * 5 * 2
    short = layer(x[:, :5], "cls").routing
    torch.testing.assert_close(routing.mean_probability(), short.mean_probability())


def test_noise_only_in_training() -> None:
    layer = make(noise_std=3.0)
    x = torch.randn(64, 16, dtype=torch.float64)
    assert not torch.equal(layer(x, "cls").output, layer(x, "cls").output)
    layer.eval()
    assert torch.equal(layer(x, "cls").output, layer(x, "cls").output)


def test_training_is_deterministic_without_noise() -> None:
    layer, x = make(torch.float32), torch.randn(300, 16)
    grads = []
    for _ in range(2):
        layer.zero_grad()
        layer(x, "cls").output.square().sum().backward()
        grads.append([p.grad.clone() for p in layer.parameters() if p.grad is not None])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


def test_an_unused_expert_gets_a_zero_gradient_not_none() -> None:
    layer = make()
    with torch.no_grad():
        layer.routers["cls"].weight[5] = 0
        layer.routers["cls"].weight[:5] = 1.0
    layer(torch.ones(4, 16, dtype=torch.float64), "cls").output.sum().backward()
    assert layer.experts[0].w1.grad[5].abs().max() == 0


def test_router_runs_in_float32_under_autocast() -> None:
    layer, x = make(torch.float32), torch.randn(30, 16)
    exact = layer(x, "cls").routing
    with torch.autocast("cpu", torch.bfloat16):
        output, routing = layer(x, "cls")
    assert output.dtype == torch.bfloat16
    assert routing.logits.dtype == torch.float32
    assert torch.equal(routing.experts, exact.experts)


def test_top_1_router_learns_from_the_task() -> None:
    layer = MoELayer(16, 32, 4, 1)
    layer(torch.randn(20, 16)).output.square().sum().backward()
    assert layer.routers["default"].weight.grad.abs().max() > 0


def test_fresh_layer_has_the_output_scale_of_the_dense_mlp() -> None:
    torch.manual_seed(0)
    layer, x = MoELayer(192, 192, 16, 4), torch.randn(500, 192)
    dense = nn.Sequential(nn.Linear(192, 768), nn.GELU(), nn.Linear(768, 192))
    for p in dense.parameters():
        nn.init.trunc_normal_(p, std=0.02) if p.ndim == 2 else nn.init.zeros_(p)
    assert layer(x).output.std().item() == pytest.approx(dense(x).std().item(), rel=0.1)


def test_state_dict_round_trip_and_plain_layout() -> None:
    layer = make()
    again = MoELayer(16, 32, 1, 1, layout=layer.layout, normalize_gates=True).double()
    again.load_state_dict(layer.state_dict())
    x = torch.randn(5, 16, dtype=torch.float64)
    assert torch.equal(layer(x, "seg").output, again(x, "seg").output)


def test_bad_input_gets_one_clear_sentence() -> None:
    layer = make()
    x = torch.randn(3, 16, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"no task 'sge' in this model. Did you mean 'seg'"):
        layer(x, task="sge")
    with pytest.raises(ValueError, match=r"pass task=...: this model has 2 tasks \(cls, seg\)"):
        layer(x)
    with pytest.raises(ValueError, match="top_k=9 with num_experts=4"):
        MoELayer(16, 32, 4, 9)
    with pytest.raises(ValueError, match="hidden_dim must be at least 1, got 0"):
        MoELayer(16, 0, 4, 2)
    with pytest.raises(ValueError, match="tokens of width 16"):
        layer(torch.randn(3, 8, dtype=torch.float64), task="cls")
    with pytest.raises(ValueError, match="token_mask must be bool of shape"):
        layer(x, task="cls", token_mask=torch.ones(2, dtype=torch.bool))
    with pytest.raises(ValueError, match="list of different names, got 'cls'"):
        MoELayer(16, 32, 4, 2, tasks="cls")
    with pytest.raises(ValueError, match="cannot name a task"):
        MoELayer(16, 32, 4, 2, tasks=("a.b",))
    with pytest.raises(ValueError, match="3 cannot name a task"):
        MoELayer(16, 32, 4, 2, tasks=(3,))
    with pytest.raises(ValueError, match="noise_std must be 0 or a positive number, got -1"):
        MoELayer(16, 32, 4, 2, noise_std=-1.0)
    wrong = {"experts": [4], "routers": {"a": {"top_k": 2, "columns": [0, 9]}}}
    with pytest.raises(ValueError, match="the router of 'a' leads to expert 9, the layer has 4"):
        MoELayer(16, 32, 4, 2, layout=wrong)
    with pytest.raises(TypeError, match=r"tokens as a tensor of floats, got torch\.int64"):
        layer(x.long(), task="cls")


def test_checkpoint_with_other_experts_is_refused() -> None:
    layer = make()
    with pytest.raises(
        ValueError, match=r"other experts: the layer.experts.0.w1 has 4 in the chec"
    ):
        layer.load_state_dict(MoELayer(16, 32, 4, 2, tasks=("cls", "seg")).state_dict())
    pruned = make()
    pruned.keep_experts([0, 1, 2, 3, 4])
    with pytest.raises(ValueError, match="other experts"):
        layer.load_state_dict(pruned.state_dict())
