"""The benchmark's baseline computes what it claims, and the table has a row per variant."""

import importlib.util
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pytest
import torch

_PATH = Path(__file__).parents[2] / "tools" / "benchmark_moe.py"
_SPEC = importlib.util.spec_from_file_location("benchmark_moe", _PATH)
benchmark_moe = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(benchmark_moe)


def test_baseline_is_mod_squads_rule() -> None:
    torch.manual_seed(0)
    layer = benchmark_moe.ModSquadRule(8, 6, 4, 2).double()
    x = torch.randn(12, 8, dtype=torch.float64, requires_grad=True)
    gates, chosen = (layer.router(x).softmax(-1) + 1e-4).topk(2)
    expected = torch.zeros_like(x)
    for n in range(12):
        for g, e in zip(gates[n], chosen[n], strict=True):
            expected[n] += g * torch.nn.functional.gelu(x[n] @ layer.w1[e]) @ layer.w2[e]
    torch.testing.assert_close(layer(x), expected)
    ours = torch.autograd.grad(layer(x).square().sum(), [x, layer.w1, layer.w2])
    theirs = torch.autograd.grad(expected.square().sum(), [x, layer.w1, layer.w2])
    torch.testing.assert_close(ours, theirs)


def test_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(benchmark_moe, "CPU_SHAPES", [(32, 16, 4, 2, 16)])
    monkeypatch.setattr(sys, "argv", ["benchmark_moe.py", "--repeats", "2"])
    benchmark_moe.main()
    rows = capsys.readouterr().out.splitlines()
    assert [r.split("|")[6].strip() for r in rows[3:]] == ["dense", "Mod-Squad rule", "auto"]
    assert rows[3].endswith("| 1.00 | " + rows[3].split("|")[-2].strip() + " |")


def test_rows_of_a_gpu() -> None:
    """Graphs are compared with graphs, and what was not captured has a dash."""
    times = {
        "dense": benchmark_moe.Times([1.0, 3.0, 2.0], [0.5, 0.5, 0.6], peak_mib=10),
        "Mod-Squad rule": benchmark_moe.Times([8.0], peak_mib=40),
        "fused": benchmark_moe.Times([4.0], [1.0], peak_mib=20.4),
    }
    assert benchmark_moe.rows(times, cuda=True) == [
        ["dense", "2.00", "1.00", "0.25", "1.00", "0.50", "1.00", "10"],
        ["Mod-Squad rule", "8.00", "4.00", "1.00", "0.25", "-", "-", "40"],
        ["fused", "4.00", "2.00", "0.50", "0.50", "1.00", "0.50", "20"],
    ]


def test_scattermoe_is_measured_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in with ScatterMoE's signature; its own kernels need a GPU."""

    class MLP(torch.nn.Module):
        def __init__(self, input_size, hidden_size, num_experts, top_k, activation=None):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(num_experts))

        def forward(self, x, expert_p, expert_idxs):
            return x * (expert_p * self.scale[expert_idxs]).sum(-1, keepdim=True)

    package, module = ModuleType("scattermoe"), ModuleType("scattermoe.mlp")
    package.__spec__ = ModuleSpec("scattermoe", None)
    module.MLP = MLP
    monkeypatch.setitem(sys.modules, "scattermoe", package)
    monkeypatch.setitem(sys.modules, "scattermoe.mlp", module)
    times = benchmark_moe.measure((8, 16, 4, 2, 16), "cpu", ["loop"], repeats=1)
    assert list(times) == ["dense", "Mod-Squad rule", "ScatterMoE", "loop"]
    x = torch.randn(8, 16)
    torch.testing.assert_close(benchmark_moe.ScatterMoERule(16, 16, 4, 2)(x), x)  # gates sum to 1


@pytest.mark.gpu
def test_everything_asked_of_a_gpu_is_measured(monkeypatch, capsys) -> None:
    monkeypatch.setattr(benchmark_moe, "H100_SHAPES", [(1024, 64, 4, 2, 64)])
    arguments = ["--device", "cuda", "--preset", "h100", "--repeats", "2"]
    monkeypatch.setattr(sys, "argv", ["benchmark_moe.py", *arguments])
    benchmark_moe.main()
    found = {
        r.split("|")[6].strip(): r.split("|") for r in capsys.readouterr().out.splitlines()[3:]
    }
    assert {"dense", "Mod-Squad rule", "fused", "triton", "grouped_mm"} <= set(found)
    assert float(found["fused"][12]) > 0  # graph against graph
    assert float(found["fused"][13]) > 0  # peak memory
