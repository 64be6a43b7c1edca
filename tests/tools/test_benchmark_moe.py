"""The benchmark's baseline computes what it claims, and the table has a row per variant."""

import importlib.util
import sys
from pathlib import Path

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
