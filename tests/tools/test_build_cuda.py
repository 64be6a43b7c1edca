"""tools/build_cuda.py: the toolkit, the architectures, and builds that fail."""

import importlib.util
import os
import shutil
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools/build_cuda.py"
spec = importlib.util.spec_from_file_location("build_cuda", TOOL)
build_cuda = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build_cuda)

NVCC = shutil.which("nvcc") or os.environ.get("CUDA_HOME")


def test_the_toolkit_is_found_through_a_wrapper(tmp_path, monkeypatch):
    if NVCC is None:
        pytest.skip("nvcc is not installed")
    toolkit = build_cuda.find_toolkit()
    assert (toolkit / "bin/nvcc").is_file()
    assert (toolkit / "include/cuda_runtime.h").is_file()
    wrapper = tmp_path / "nvcc"
    wrapper.write_text(f'#!/bin/sh\nexec {toolkit}/bin/nvcc "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.delenv("CUDA_HOME", raising=False)
    assert build_cuda.find_toolkit() == toolkit


def test_architectures(monkeypatch):
    assert build_cuda.architectures(["10.0", "8.0"]) == ["80", "100"]
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "8.6;9.0+PTX")
    assert build_cuda.architectures([]) == ["86", "90"]


def test_build_errors_are_one_sentence(monkeypatch, capsys):
    monkeypatch.delenv("TORCH_CUDA_ARCH_LIST", raising=False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert build_cuda.main([]) == 2
    assert "no GPU here to build for: name the architectures" in capsys.readouterr().err
    assert build_cuda.main(["--arch", "sm_90"]) == 2
    assert "'sm_90' is no compute capability; write it like 9.0" in capsys.readouterr().err
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CUDA_HOME", raising=False)
    assert build_cuda.main(["--arch", "9.0"]) == 2
    assert "no nvcc: set CUDA_HOME" in capsys.readouterr().err


def test_a_failed_build_keeps_the_old_library(monkeypatch, tmp_path):
    output = tmp_path / "_cuda.abi3.so"
    output.write_text("old")
    monkeypatch.setattr(build_cuda, "find_toolkit", lambda: Path("toolkit"))
    monkeypatch.setattr(build_cuda, "build_command", lambda *_: [sys.executable, "-c", "exit(3)"])
    assert build_cuda.main(["--arch", "9.0", "--output", str(output)]) == 1
    assert output.read_text() == "old"
