"""Every kernel compiles for sm_90 without a GPU, and keeps its values in registers."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_kernels_compile_for_sm_90_without_spills(dtype: str) -> None:
    if importlib.util.find_spec("triton") is None:
        pytest.skip("triton is not installed (it comes with torch's CUDA wheels)")
    clean = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    root = Path(__file__).parents[3]
    command = [sys.executable, Path(__file__).with_name("offline.py"), dtype]
    done = subprocess.run(
        command, env=clean | {"PYTHONPATH": str(root)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    spilled = {n: int(b) for n, b in re.findall(r"(.+): \d+ registers, (\d+) bytes", done.stdout)}
    assert len(spilled) == 20
    assert max(spilled.values()) <= 64, spilled
