"""The kernels as a host library, built once per session by g++."""

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest

from visionlab.rotation import native

FOLDER = Path(__file__).parent
FLAGS = ("-std=c++17", "-O1", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror")


def build_host_driver(output: Path, kernel_text: str) -> ctypes.CDLL:
    """Compile the emulated driver around a kernel text, the shipped one or a mutant of it."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("g++ is not installed: it runs the CUDA kernel text on the host")
    (output.parent / "kernels.cuh").write_text(kernel_text)
    command = [compiler, *FLAGS, "-shared", "-fPIC", f"-I{output.parent}", "-o", str(output)]
    command.append(str(FOLDER / "host_driver.cpp"))
    subprocess.run(command, check=True, capture_output=True, text=True)
    library = ctypes.CDLL(str(output))
    library.host_last_launch.restype = ctypes.c_void_p
    return library


@pytest.fixture(scope="session")
def build_driver(tmp_path_factory):
    """Function from a kernel text to the emulated driver that runs it."""
    return lambda text: build_host_driver(tmp_path_factory.mktemp("driver") / "driver.so", text)


@pytest.fixture(scope="session")
def host_driver(build_driver):
    return build_driver(native.kernel_text())
