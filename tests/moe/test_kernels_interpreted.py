"""Without a GPU: the kernel tests in Triton's interpreter, in a process of their own."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_kernels_in_the_interpreter() -> None:
    if importlib.util.find_spec("triton") is None:
        pytest.skip("triton is not installed (it comes with torch's CUDA wheels)")
    if torch.cuda.is_available():
        pytest.skip("tests/moe/kernels run on the GPU itself")
    tests = Path(__file__).parent / "kernels" / "test_kernels.py"
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not gpu", str(tests)]
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    passed = re.search(r"(\d+) passed", done.stdout)
    assert done.returncode == 0, done.stdout[-3000:]
    assert passed is not None
    assert int(passed[1]) >= 11
    assert "skipped" not in done.stdout
