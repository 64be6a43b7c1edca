"""Kernels run on a CUDA device if there is one, else in Triton's interpreter."""

import importlib.util

import pytest
import torch


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> str:
    """Where the kernels run; the interpreter is chosen before they are first imported."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("triton is not installed (it comes with torch's CUDA wheels)")
    if torch.cuda.is_available():
        return "cuda"
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    return "cpu"
