"""Which code multiplies the experts' rows, and why another one cannot.

- ``loop``: one matmul per expert; any device and dtype; reads the group sizes back to the host.
- ``grouped_mm``: torch's grouped product, plain torch between the products; no host sync.
- ``fused``: torch's grouped product, Triton kernels for everything between the products.
- ``triton``: Triton kernels for the products too.
- ``auto``: ``loop`` on a CPU; on CUDA ``fused`` for bfloat16, else ``triton`` where Triton and
  the widths allow it, else ``grouped_mm``, else ``loop``. One log line per choice.
"""

import functools
import importlib.util
import logging
import os

import torch
import torch.nn.functional as F

from visionlab.registry import suggest

BACKENDS = ("auto", "loop", "grouped_mm", "fused", "triton")
_GROUPED_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_log = logging.getLogger(__name__)


def check_backend(name: str) -> None:
    """Raise ValueError unless ``name`` is one of `BACKENDS`."""
    if name not in BACKENDS:
        raise ValueError(f"no MoE backend '{name}'. {suggest(name, BACKENDS)}")


def resolve_backend(
    name: str, *, device: torch.device, dtype: torch.dtype, widths: tuple[int, ...]
) -> str:
    """The backend that will run.

    Args:
        name: one of `BACKENDS`.
        device: of the tokens.
        dtype: of the products.
        widths: input and hidden width of an expert.

    Raises:
        ValueError: a backend was forced that cannot run here; the sentence says why.
    """
    check_backend(name)
    if name != "auto":
        why = _obstacle(name, device, dtype, widths)
        if why:
            raise ValueError(
                f"MoE backend '{name}' cannot run: {why}; choose backend='auto' or 'loop'"
            )
        return name
    order = ["loop"]
    if device.type == "cuda":
        tuned = ["fused", "triton"] if dtype == torch.bfloat16 else ["triton"]
        order = [*tuned, "grouped_mm", "loop"]
    chosen = next(b for b in order if not _obstacle(b, device, dtype, widths))
    _announce(chosen, device.type, str(dtype))
    return chosen


@functools.cache
def _announce(backend: str, device: str, dtype: str) -> None:
    _log.info("MoE backend on %s with %s: %s", device, dtype, backend)


def _obstacle(
    name: str, device: torch.device, dtype: torch.dtype, widths: tuple[int, ...]
) -> str | None:
    """Why a backend cannot run, or None."""
    if name == "loop":
        return None
    if dtype not in _GROUPED_DTYPES:
        return f"it has no {dtype} products"
    if name in ("grouped_mm", "fused"):
        if not hasattr(F, "grouped_mm"):
            return f"torch {torch.__version__} has no grouped_mm"
        odd = [w for w in widths if w * dtype.itemsize % 16]
        if odd:
            return f"rows must be multiples of 16 bytes, width {odd[0]} in {dtype} is not"
        if name == "fused" and not _tuned_for(device, dtype):
            return f"torch's grouped product is tuned for bfloat16 on CUDA only, got {dtype}"
    return None if name == "grouped_mm" else _triton_obstacle(device, widths)


def _tuned_for(device: torch.device, dtype: torch.dtype) -> bool:
    return device.type != "cuda" or dtype == torch.bfloat16


def _triton_obstacle(device: torch.device, widths: tuple[int, ...]) -> str | None:
    if not _triton_installed():
        return "Triton is not installed"
    if any(w % 16 for w in widths):
        return f"its kernels need widths that are multiples of 16, got {widths}"
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        return None if major >= 8 else f"it needs compute capability 8.0, this is {major}.{minor}"
    if device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1":
        return None
    return (
        f"Triton kernels run on CUDA, the tokens are on {device.type} "
        "(set TRITON_INTERPRET=1 before the import to test them slowly on a CPU)"
    )


@functools.cache
def _triton_installed() -> bool:
    """Whether `import triton` would work."""
    return importlib.util.find_spec("triton") is not None
