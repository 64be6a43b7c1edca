"""Kernels run on a CUDA device if there is one, else in Triton's interpreter.

Triton must be imported with TRITON_INTERPRET=1 already set, which a process that runs other tests
cannot promise: without a GPU, `tests/moe/test_kernels_interpreted.py` runs this folder in a fresh
process, and here the tests are skipped.
"""

import importlib.util
import os

import pytest
import torch


@pytest.fixture
def device() -> str:
    """Where the kernels run."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("triton is not installed (it comes with torch's CUDA wheels)")
    if os.environ.get("TRITON_INTERPRET") == "1":
        return "cpu"
    if not torch.cuda.is_available():
        pytest.skip("run in the interpreter by tests/moe/test_kernels_interpreted.py")
    return "cuda"
