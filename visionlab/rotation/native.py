"""Where the CUDA votes come from: a prebuilt library, else NVRTC at first use, else an error.

The environment variable ``VISIONLAB_NATIVE`` narrows that down: ``prebuilt`` or ``nvrtc`` allow one
of the two, ``off`` allows neither, ``auto`` (or unset) tries them in this order. It is read once.
Whatever is tried is tried once per process, failures included; one log line says what runs.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from visionlab.registry import suggest
from visionlab.rotation import nvrtc

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

SWITCH = "VISIONLAB_NATIVE"
POLICIES = ("auto", "prebuilt", "nvrtc", "off")
LIBRARY = Path(__file__).with_name("_cuda.abi3.so")
KERNEL_FILES = ("hough_so3.cuh", "refine_so3.cuh")


class NativeUnavailable(RuntimeError):
    """No CUDA implementation of the vote can run; the message names each cause."""


class Attempt(NamedTuple):
    """Outcome of one way to get the kernels: usable, or the cause why not."""

    usable: bool
    cause: str = ""


@functools.cache
def policy() -> str:
    """What ``VISIONLAB_NATIVE`` allows.

    Raises:
        ValueError: it is set to something else than auto, prebuilt, nvrtc or off.
    """
    value = os.environ.get(SWITCH, "auto").strip().lower() or "auto"
    if value not in POLICIES:
        raise ValueError(f"{SWITCH}={value!r} is no policy. {suggest(value, POLICIES)}")
    return value


@functools.cache
def source_folder() -> Path:
    """The folder of the kernel text: inside the package of a wheel, beside it in a checkout.

    Raises:
        FileNotFoundError: neither exists.
    """
    package = Path(__file__).resolve().parents[1]
    folders = (package / "csrc", package.parent / "csrc")
    for folder in folders:
        if all((folder / name).is_file() for name in KERNEL_FILES):
            return folder
    raise FileNotFoundError(
        f"the kernel text {KERNEL_FILES[0]} is neither in {folders[0]} nor in {folders[1]}; "
        "reinstall visionlab"
    )


@functools.cache
def kernel_text() -> str:
    """CUDA C++ of all kernels, which includes nothing."""
    return "\n".join((source_folder() / n).read_text(encoding="utf-8") for n in KERNEL_FILES)


def text_hash() -> str:
    """Hash of the kernel text; a built library carries the one it was built from."""
    return hashlib.sha256(kernel_text().encode()).hexdigest()[:16]


@functools.cache
def load_prebuilt() -> Attempt:
    """Load the library that tools/build_cuda.py builds; it registers the ops for CUDA tensors."""
    if policy() not in ("auto", "prebuilt"):
        return Attempt(False, f"{SWITCH}={policy()}")
    if not LIBRARY.is_file():
        return Attempt(
            False, f"no {LIBRARY.name} in {LIBRARY.parent} (tools/build_cuda.py makes it)"
        )
    import ctypes

    import torch

    try:
        hash_function = ctypes.CDLL(str(LIBRARY)).hough_so3_text_hash
    except (OSError, AttributeError) as error:
        return Attempt(False, f"{LIBRARY.name} does not load: {error}")
    hash_function.restype = ctypes.c_char_p
    if hash_function().decode() != text_hash():
        return Attempt(False, f"{LIBRARY.name} was built from another kernel text; build it again")
    torch.ops.load_library(str(LIBRARY))
    return Attempt(True)


@functools.cache
def probe_nvrtc() -> Attempt:
    """Whether NVRTC may be used and can be loaded; compiles nothing."""
    if policy() not in ("auto", "nvrtc"):
        return Attempt(False, f"{SWITCH}={policy()}")
    try:
        nvrtc.nvrtc_library()
    except nvrtc.CudaError as error:
        return Attempt(False, str(error))
    return Attempt(True)


@functools.cache
def source() -> str:
    """Which of the two runs the CUDA votes of this process: ``prebuilt`` or ``nvrtc``.

    Raises:
        NativeUnavailable: neither can, with both causes.
    """
    prebuilt = load_prebuilt()
    if prebuilt.usable:
        logger.info("CUDA votes: prebuilt library %s", LIBRARY)
        return "prebuilt"
    compiled = probe_nvrtc()
    if compiled.usable:
        logger.info("CUDA votes: NVRTC at first use (no prebuilt library: %s)", prebuilt.cause)
        return "nvrtc"
    raise NativeUnavailable(
        f"no CUDA kernels. Prebuilt library: {prebuilt.cause}. "
        f"NVRTC: {compiled.cause}. backend='numba' runs on the CPU"
    )


@functools.cache
def _cubin(capability: nvrtc.Capability) -> bytes:
    return nvrtc.compile_cubin(kernel_text(), capability=capability, name="hough_so3.cu")


@functools.cache
def _compiled_kernels(device_index: int) -> nvrtc.Kernels | nvrtc.CudaError:
    import torch

    properties = torch.cuda.get_device_properties(device_index)
    shared_limit = getattr(properties, "shared_memory_per_block_optin", nvrtc.DEFAULT_SHARED_BYTES)
    try:
        with torch.cuda.device(device_index):
            return nvrtc.Kernels(
                _cubin((properties.major, properties.minor)),
                device_index=device_index,
                shared_limit=shared_limit,
                driver=nvrtc.cuda_driver(),
            )
    except nvrtc.CudaError as error:
        return error


def _kernels(device_index: int) -> nvrtc.Kernels:
    source()  # says once what runs, or why nothing can
    kernels = _compiled_kernels(device_index)
    if isinstance(kernels, nvrtc.CudaError):
        raise NativeUnavailable(
            f"no CUDA kernels. Prebuilt library: {load_prebuilt().cause}. "
            f"NVRTC: {kernels}. backend='numba' runs on the CPU"
        ) from kernels
    return kernels


def vote_nvrtc(lines: torch.Tensor, weights: torch.Tensor | None, bins: int) -> torch.Tensor:
    """``visionlab::hough_vote`` on CUDA tensors, on the current stream of their device.

    Raises:
        NativeUnavailable: the kernels cannot be compiled or loaded (remembered per device).
    """
    import torch

    kernels = _kernels(lines.get_device())
    frames, count = lines.shape[:2]
    with torch.cuda.device(lines.device):
        result = lines.new_zeros((frames, 2), dtype=torch.int64)
        kernels.vote(
            lines.data_ptr(),
            None if weights is None else weights.data_ptr(),
            result.data_ptr(),
            frames=frames,
            lines_per_frame=count,
            bins=bins,
            stream=torch.cuda.current_stream().cuda_stream,
        )
    return result


def refine_nvrtc(
    rows: torch.Tensor,
    counts: torch.Tensor | None,
    start: torch.Tensor,
    first_scale: float,
    scale: float,
) -> torch.Tensor:
    """``visionlab::so3_refine`` on CUDA tensors, on the current stream of their device.

    Raises:
        NativeUnavailable: the kernels cannot be compiled or loaded (remembered per device).
    """
    import torch

    kernels = _kernels(rows.get_device())
    with torch.cuda.device(rows.device):
        result = rows.new_empty((len(rows), nvrtc.REFINE_FIELDS))
        job = nvrtc.RefineJob(
            rows.data_ptr(),
            None if counts is None else counts.data_ptr(),
            start.data_ptr(),
            result.data_ptr(),
            first_scale,
            scale,
            len(rows),
            rows.shape[-1],
        )
        kernels.refine(job, stream=torch.cuda.current_stream().cuda_stream)
    return result


def choose_backend(requested: str, *, on_gpu: bool) -> str:
    """The voting backend to use: ``numpy``, ``numba`` or ``cuda``.

    Args:
        requested: one of these, or ``auto``: CUDA where the data already lie on a GPU and its
            kernels can run, else numba (said once, with the causes).
        on_gpu: whether the data lie on a GPU.

    Raises:
        RuntimeError: ``cuda`` was asked for without a GPU (`NativeUnavailable`: without kernels).
    """
    if requested == "auto":
        return _automatic_backend() if on_gpu else "numba"
    if requested == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise RuntimeError(
                "backend='cuda' was asked for, but torch sees no CUDA device; "
                "use backend='numba' or 'auto'"
            )
        source()
    return requested


@functools.cache
def _automatic_backend() -> str:
    try:
        source()
    except NativeUnavailable as error:
        logger.warning("votes of GPU tensors run on the CPU (numba): %s", error)
        return "numba"
    return "cuda"
