"""The choice of a backend, and the sentence when it cannot run."""

import importlib.util
import logging

import pytest
import torch

from visionlab.moe import MoELayer
from visionlab.moe.backends import _announce, resolve_backend

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_auto_is_loop_on_a_cpu_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    _announce.cache_clear()
    with caplog.at_level(logging.INFO, logger="visionlab.moe.backends"):
        for _ in range(2):
            chosen = resolve_backend("auto", device=CPU, dtype=torch.float32, widths=(32, 64))
    assert chosen == "loop"
    assert caplog.messages == ["MoE backend on cpu with torch.float32: loop"]


@pytest.mark.parametrize(
    ("dtype", "widths", "capability", "expected"),
    [
        (torch.bfloat16, (384, 384), (9, 0), "fused"),
        (torch.bfloat16, (384, 384), (7, 5), "grouped_mm"),
        (torch.float32, (384, 384), (9, 0), "triton"),
        (torch.float64, (384, 384), (9, 0), "loop"),
        (torch.bfloat16, (30, 47), (9, 0), "loop"),
    ],
)
def test_auto_on_cuda(
    dtype: torch.dtype,
    widths: tuple[int, int],
    capability: tuple[int, int],
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if importlib.util.find_spec("triton") is None:
        pytest.skip("triton is not installed")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
    assert resolve_backend("auto", device=CUDA, dtype=dtype, widths=widths) == expected


def test_forced_backends_explain_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    x = torch.randn(4, 32)
    with pytest.raises(ValueError, match=r"no MoE backend 'grouped'. Did you mean 'grouped_mm'"):
        MoELayer(32, 32, 4, 2, backend="grouped")
    with pytest.raises(ValueError, match=r"'grouped_mm' cannot run: it has no torch.float64 prod"):
        MoELayer(32, 32, 4, 2, backend="grouped_mm").double()(x.double())
    with pytest.raises(ValueError, match=r"multiples of 16 bytes, width 30 in torch.float32"):
        MoELayer(32, 30, 4, 2, backend="grouped_mm")(x)
    with pytest.raises(ValueError, match="Triton kernels run on CUDA, the tokens are on cpu"):
        MoELayer(32, 32, 4, 2, backend="triton")(x)
    with pytest.raises(ValueError, match="choose backend='auto' or 'loop'"):
        MoELayer(32, 32, 4, 2, backend="fused")(x)
