"""Triton kernels for everything between the experts' matrix products, and for the products.

`visionlab.moe.kernels.functions` wraps them for autograd; `visionlab.moe.fused` builds the layers
from those. They run on CUDA (compute capability 8.0 and up), and slowly on a CPU in Triton's
interpreter (TRITON_INTERPRET=1 before the first import), where the tests hold them to the plain
torch path. Nothing here reads a size back from the device, so a CUDA graph can capture it.
"""

from visionlab.registry import lazy_exports

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        n: n
        for n in (
            *("routing", "rows", "slots", "activation", "router_gradient", "grouped_gemm"),
            *("functions", "blocks"),
        )
    },
)
