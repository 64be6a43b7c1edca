"""CUDA kernels from text, without nvcc, headers or a compiler: NVRTC compiles, the driver launches.

Only the documented C interfaces of NVRTC and of the CUDA driver are called, through ctypes. torch
has a launcher of its own, but it is private, checks neither dtype nor contiguity, and looks the
driver up at each launch, which costs more than the vote of one frame.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Sequence
from dataclasses import dataclass

Capability = tuple[int, int]

# No contraction (a * b + c rounds twice), as in the NumPy twin: votes are compared bit for bit.
OPTIONS = ("--std=c++17", "--fmad=false")

HEADER_BYTES = 16
MAX_BINS = 1625  # the largest whose cells can be numbered in 32 bits
MAX_GRID_Y = 65535
REFINE_FIELDS = 11  # rotation vector, scale, covariance (xx xy xz yy yz zz), solved
REFINE_SHARED_BYTES = 5416  # sizeof(RefineShared)
DEFAULT_SHARED_BYTES = 48 * 1024  # more has to be asked for
_MAX_DYNAMIC_SHARED_SIZE_BYTES = 8  # CU_FUNC_ATTRIBUTE_...


class CudaError(RuntimeError):
    """A call of NVRTC or of the CUDA driver failed."""


class VoteJob(ctypes.Structure):
    """``struct HoughVote`` of csrc/hough_so3.cuh, passed by value."""

    _fields_ = (
        ("lines", ctypes.c_void_p),
        ("weights", ctypes.c_void_p),
        ("result", ctypes.c_void_p),
        ("frames", ctypes.c_int),
        ("lines_per_frame", ctypes.c_int),
        ("bins", ctypes.c_int),
        ("rows", ctypes.c_int),
    )


class RefineJob(ctypes.Structure):
    """``struct HoughRefine`` of csrc/refine_so3.cuh."""

    _fields_ = (
        ("rows", ctypes.c_void_p),
        ("counts", ctypes.c_void_p),
        ("start", ctypes.c_void_p),
        ("result", ctypes.c_void_p),
        ("first_scale", ctypes.c_double),
        ("scale", ctypes.c_double),
        ("frames", ctypes.c_int),
        ("vectors", ctypes.c_int),
    )


@dataclass(frozen=True)
class LaunchPlan:
    """How a vote is spread over blocks; ``hough_plan`` of csrc/hough_so3.cuh is its twin."""

    threads: int
    rows: int
    tiles: int
    shared_bytes: int


@functools.cache
def plan_launch(lines_per_frame: int, bins: int, shared_limit: int) -> LaunchPlan:
    """Whole slabs where ``shared_limit`` bytes hold one, else as few tiles of y as possible."""
    most_rows = (shared_limit - HEADER_BYTES) // (4 * bins)
    tiles = -(-bins // most_rows)
    rows = -(-bins // tiles)
    threads = 256 if lines_per_frame <= 2048 else 512
    return LaunchPlan(threads, rows, tiles, HEADER_BYTES + 4 * bins * rows)


def _first_library(names: Sequence[str]) -> ctypes.CDLL:
    errors = []
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError as error:
            errors.append(str(error))
    raise CudaError(f"cannot load {' or '.join(names)}: {errors[0]}")


@functools.cache
def nvrtc_library() -> ctypes.CDLL:
    """The NVRTC library that this torch depends on.

    Raises:
        CudaError: torch was built without CUDA, or its NVRTC library cannot be loaded.
    """
    import torch  # loads the CUDA libraries of its wheel, which makes them known by name

    if torch.version.cuda is None:
        raise CudaError(f"torch {torch.__version__} was built without CUDA")
    major = torch.version.cuda.split(".")[0]
    windows = sys.platform == "win32"
    names = [f"nvrtc64_{major}0_0.dll"] if windows else [f"libnvrtc.so.{major}", "libnvrtc.so"]
    return _first_library(names)


@functools.cache
def cuda_driver() -> ctypes.CDLL:
    """The CUDA driver.

    Raises:
        CudaError: there is none on this machine.
    """
    return _first_library(["nvcuda.dll"] if sys.platform == "win32" else ["libcuda.so.1"])


def compile_cubin(text: str, *, capability: Capability, name: str = "kernel.cu") -> bytes:
    """Compile CUDA C++ that includes nothing for one architecture. Needs no GPU.

    Args:
        text: the source.
        capability: compute capability, e.g. ``(9, 0)``.
        name: what the compiler calls the text in its messages.

    Raises:
        CudaError: no NVRTC, an architecture it does not know, an error in the text (with its log).
    """
    library = nvrtc_library()
    library.nvrtcGetErrorString.restype = ctypes.c_char_p
    arch = f"--gpu-architecture=sm_{capability[0]}{capability[1]}"
    options = [option.encode() for option in (arch, *OPTIONS)]
    program = ctypes.c_void_p()

    def check(status: int) -> None:
        if status != 0:
            reason = library.nvrtcGetErrorString(status).decode()
            raise CudaError(f"NVRTC, {arch}: {reason}. {_compile_log(library, program)}".strip())

    check(
        library.nvrtcCreateProgram(
            ctypes.byref(program), text.encode(), name.encode(), 0, None, None
        )
    )
    try:
        array = (ctypes.c_char_p * len(options))(*options)
        check(library.nvrtcCompileProgram(program, len(options), array))
        size = ctypes.c_size_t()
        check(library.nvrtcGetCUBINSize(program, ctypes.byref(size)))
        cubin = ctypes.create_string_buffer(size.value)
        check(library.nvrtcGetCUBIN(program, cubin))
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))
    return cubin.raw


def _compile_log(library: ctypes.CDLL, program: ctypes.c_void_p) -> str:
    size = ctypes.c_size_t()
    if not program or library.nvrtcGetProgramLogSize(program, ctypes.byref(size)) != 0:
        return ""
    log = ctypes.create_string_buffer(max(size.value, 1))
    library.nvrtcGetProgramLog(program, log)
    return log.value.decode(errors="replace")


class Kernels:
    """The kernels of csrc/ on one device, to be called from any thread.

    Args:
        cubin: what `compile_cubin` returned for this device.
        device_index: as torch and the driver count them.
        shared_limit: bytes of shared memory that one block may have when asked for.
        driver: the CUDA driver.

    Raises:
        CudaError: the driver refuses the binary.
    """

    def __init__(
        self, cubin: bytes, *, device_index: int, shared_limit: int, driver: ctypes.CDLL
    ) -> None:
        self._driver = driver
        self._shared_limit = shared_limit
        self._allowed_bytes = DEFAULT_SHARED_BYTES
        device, self._context = ctypes.c_int(), ctypes.c_void_p()
        self._check(driver.cuDeviceGet(ctypes.byref(device), device_index), "find the device")
        # the context that torch uses; it lives as long as the process
        status = driver.cuDevicePrimaryCtxRetain(ctypes.byref(self._context), device)
        self._check(status, "open the device")
        self._enter()
        module = ctypes.c_void_p()
        self._check(driver.cuModuleLoadData(ctypes.byref(module), cubin), "load the kernels")
        self._vote = self._function(module, "hough_so3_vote")
        self._unpack = self._function(module, "hough_so3_unpack")
        self._refine = self._function(module, "hough_so3_refine")

    def vote(
        self,
        lines: int,
        weights: int | None,
        result: int,
        *,
        frames: int,
        lines_per_frame: int,
        bins: int,
        stream: int,
    ) -> None:
        """Queue the vote on ``stream``; all pointers are device addresses.

        Args:
            lines: (frames, lines_per_frame, 4) float64.
            weights: (frames, lines_per_frame) int32 >= 0, or None for one vote per line.
            result: (frames, 2) int64, zeros; receives cell (-1 without any vote) and votes.

        Raises:
            CudaError: the launch fails.
        """
        if frames == 0:
            return
        self._enter()
        plan = plan_launch(lines_per_frame, bins, self._shared_limit)
        if plan.shared_bytes > self._allowed_bytes:
            self._allow(plan.shared_bytes)
        job = VoteJob(lines, weights, result, frames, lines_per_frame, bins, plan.rows)
        parameters = (ctypes.c_void_p * 1)(ctypes.addressof(job))
        grid = (bins, min(frames, MAX_GRID_Y), plan.tiles)
        self._launch(self._vote, grid, plan.threads, plan.shared_bytes, stream, parameters)
        self._launch(self._unpack, (-(-frames // 256), 1, 1), 256, 0, stream, parameters)

    def refine(self, job: RefineJob, *, stream: int) -> None:
        """Queue the refinement on ``stream``; the pointers of ``job`` are device addresses.

        Raises:
            CudaError: the launch fails.
        """
        if job.frames == 0:
            return
        self._enter()
        parameters = (ctypes.c_void_p * 1)(ctypes.addressof(job))
        grid = (job.frames, 1, 1)
        self._launch(self._refine, grid, 256, REFINE_SHARED_BYTES, stream, parameters)

    def _enter(self) -> None:
        """Make the device's context current: a thread that has not used CUDA yet has none."""
        self._check(self._driver.cuCtxSetCurrent(self._context), "enter the device's context")

    def _allow(self, shared_bytes: int) -> None:
        status = self._driver.cuFuncSetAttribute(
            self._vote, _MAX_DYNAMIC_SHARED_SIZE_BYTES, shared_bytes
        )
        self._check(status, f"use {shared_bytes} bytes of shared memory")
        self._allowed_bytes = shared_bytes

    def _launch(
        self,
        function: ctypes.c_void_p,
        grid: tuple[int, int, int],
        threads: int,
        shared_bytes: int,
        stream: int,
        parameters: ctypes.Array[ctypes.c_void_p],
    ) -> None:
        status = self._driver.cuLaunchKernel(
            function, *grid, threads, 1, 1, shared_bytes, ctypes.c_void_p(stream), parameters, None
        )
        self._check(status, "launch a kernel")

    def _function(self, module: ctypes.c_void_p, name: str) -> ctypes.c_void_p:
        function = ctypes.c_void_p()
        status = self._driver.cuModuleGetFunction(ctypes.byref(function), module, name.encode())
        self._check(status, f"find the kernel {name}")
        return function

    def _check(self, status: int, action: str) -> None:
        if status == 0:
            return
        text = ctypes.c_char_p()
        self._driver.cuGetErrorString(status, ctypes.byref(text))
        reason = text.value.decode() if text.value else "unknown error"
        raise CudaError(f"the CUDA driver could not {action}: {reason} (code {status})")
