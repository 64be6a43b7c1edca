"""Build the CUDA vote ahead of time: csrc/hough_so3.cu -> visionlab/rotation/_cuda.abi3.so.

    python tools/build_cuda.py --arch 8.0 9.0 10.0

Needs nvcc, but no GPU. Without this library visionlab compiles the same kernel text with NVRTC at
first use, so building is a matter of launch latency, never a requirement. The library uses torch's
stable ABI: built once, it serves every torch from 2.10 on.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from visionlab.rotation import native, nvrtc

TARGET_TORCH = "0x020a000000000000"  # the oldest torch whose stable ABI has what we call: 2.10


def find_toolkit() -> Path:
    """The CUDA toolkit: ``CUDA_HOME``, else the folder of nvcc, seen through wrapper scripts.

    Raises:
        FileNotFoundError: there is no nvcc.
    """
    home = os.environ.get("CUDA_HOME")
    if home and (Path(home) / "bin" / "nvcc").is_file():
        return Path(home)
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        raise FileNotFoundError(
            "no nvcc: set CUDA_HOME to a CUDA toolkit or put its bin folder on PATH; without nvcc "
            "visionlab uses NVRTC, which needs no build"
        )
    # A wrapper on PATH lies outside the toolkit; nvcc itself knows where it is.
    printed = subprocess.run(
        [nvcc, "--dryrun", "-x", "cu", os.devnull], capture_output=True, text=True, check=False
    ).stderr
    top = re.search(r"^#\$ TOP=(.+)$", printed, re.MULTILINE)
    return Path(top[1]).resolve() if top else Path(nvcc).resolve().parents[1]


def architectures(named: list[str]) -> list[str]:
    """Compute capabilities to build for: those named, else those of the GPUs here.

    Raises:
        ValueError: nothing named and no GPU here, or a name that is no capability.
    """
    if not named and os.environ.get("TORCH_CUDA_ARCH_LIST"):
        named = re.split(r"[ ;]+", os.environ["TORCH_CUDA_ARCH_LIST"].replace("+PTX", "").strip())
    if not named:
        import torch

        found = {torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count())}
        named = [f"{major}.{minor}" for major, minor in sorted(found)]
    if not named:
        raise ValueError(
            "no GPU here to build for: name the architectures, e.g. --arch 8.0 9.0 10.0"
        )
    for name in named:
        if not re.fullmatch(r"\d{1,2}\.\d", name):
            raise ValueError(f"'{name}' is no compute capability; write it like 9.0")
    return [name.replace(".", "") for name in sorted(named, key=float)]


def build_command(toolkit: Path, archs: list[str], output: Path) -> list[str]:
    """The nvcc call: machine code per architecture, and PTX of the newest for those to come."""
    from torch.utils.cpp_extension import include_paths, library_paths

    codes = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in archs]
    codes.append(f"-gencode=arch=compute_{archs[-1]},code=compute_{archs[-1]}")
    return [
        str(toolkit / "bin" / "nvcc"),
        str(native.source_folder() / "hough_so3.cu"),
        *("-o", str(output), "-shared", "-O3", "-Xcompiler", "-fPIC,-fvisibility=hidden"),
        *nvrtc.OPTIONS,
        *codes,
        "-DUSE_CUDA",
        f"-DTORCH_TARGET_VERSION={TARGET_TORCH}",
        f'-DHOUGH_TEXT_HASH="{native.text_hash()}"',
        *(f"-I{path}" for path in include_paths()),
        *(f"-L{path}" for path in library_paths()),
        *("-ltorch", "-ltorch_cpu", "-ltorch_cuda", "-lc10"),
    ]


def build(archs: list[str], output: Path) -> None:
    """Build the library and put it in place in one step, so that a broken build leaves the old one.

    Raises:
        subprocess.CalledProcessError: nvcc fails.
    """
    toolkit = find_toolkit()
    os.environ["CUDA_HOME"] = str(toolkit)  # torch would guess it from a wrapper on PATH
    print(f"CUDA toolkit: {toolkit}", flush=True)
    output.parent.mkdir(parents=True, exist_ok=True)
    unfinished = output.with_suffix(".building")
    command = build_command(toolkit, archs, unfinished)
    print(" ".join(command), flush=True)
    subprocess.run(command, check=True)
    unfinished.replace(output)
    print(f"built {output} for {', '.join(archs)}")


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--arch", nargs="+", default=[], help="compute capabilities, e.g. 8.0 9.0")
    parser.add_argument(
        "--output", type=Path, default=native.LIBRARY, help="where the library goes"
    )
    options = parser.parse_args(arguments)
    try:
        build(architectures(options.arch), options.output)
    except (FileNotFoundError, ValueError) as error:
        print(f"build_cuda: {error}", file=sys.stderr)
        return 2
    except subprocess.CalledProcessError as error:
        print(f"build_cuda: nvcc failed with status {error.returncode}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
