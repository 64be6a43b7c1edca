"""Compile every kernel launch of a training step for sm_90, without a GPU.

    python tests/moe/kernels/offline.py bfloat16

Launches are intercepted: each kernel is compiled for its real arguments instead of being run, so
later kernels see uninitialised numbers but true types. Prints one line per distinct kernel:
name, registers, spilled bytes.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

TARGET = GPUTarget("cuda", 90, 32)
TYPES = {
    torch.bfloat16: "*bf16",
    torch.float32: "*fp32",
    torch.int32: "*i32",
    torch.uint8: "*u8",
}
OPTIONS = ("num_warps", "num_stages")


def compile_launch(kernel: JITFunction, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The binary for sm_90 of one launch."""
    options = {k: kwargs.pop(k) for k in OPTIONS if k in kwargs}
    given = dict(zip(kernel.arg_names, args, strict=False)) | kwargs
    signature, constants, attributes = {}, {}, {}
    for i, parameter in enumerate(kernel.params):
        value = given[parameter.name]
        if parameter.is_constexpr:
            signature[parameter.name], constants[(i,)] = "constexpr", value
        elif isinstance(value, torch.Tensor):
            signature[parameter.name] = TYPES[value.dtype]
            attributes[(i,)] = [["tt.divisibility", 16]]
        else:
            signature[parameter.name] = "i32"
            if value % 16 == 0 and not parameter.do_not_specialize:
                attributes[(i,)] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, signature, constexprs=constants, attrs=attributes)
    return triton.compile(source, target=TARGET, options=options)


def resources(binary: Any) -> tuple[int, int]:
    """Registers and spilled bytes per thread, from ptxas."""
    ptxas = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "ptxas"
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernel.ptx"
        source.write_text(binary.asm["ptx"])
        command = [ptxas, "-v", "--gpu-name=sm_90a", source, "-o", Path(folder) / "kernel.cubin"]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    registers = int(re.search(r"Used (\d+) registers", said)[1])
    return registers, int(re.search(r"(\d+) bytes spill stores", said)[1])


def main(dtype: torch.dtype) -> None:
    """Compile the kernels of both backends, of both kinds of layer."""
    seen: dict[str, tuple[int, int]] = {}

    def launch(self: JITFunction, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
        binary = compile_launch(self, args, kwargs)
        flags = "".join(f" {k}={v}" for k, v in kwargs.items() if k.isupper() and len(k) > 2)
        name = f"{self.__name__}{flags}"
        seen[name] = max(seen.get(name, (0, 0)), resources(binary))

    JITFunction.run = launch
    launch_all(dtype)
    for name, (registers, spilled) in seen.items():
        print(f"{name}: {registers} registers, {spilled} bytes spilled")


def launch_all(dtype: torch.dtype) -> None:
    """Every host function once, with the widths of ViT-B and 16 experts."""
    from visionlab.moe.kernels import (
        activation,
        grouped_gemm,
        router_gradient,
        routing,
        rows,
        slots,
    )

    n, d, h, e, k = 64, 768, 1536, 16, 2
    x, w, mask = torch.zeros(n, d, dtype=dtype), torch.zeros(e, d), torch.ones(n).bool()
    columns, noise = torch.arange(e), torch.zeros(n, e)
    for normalize, valid, extra in ((True, None, None), (False, mask, noise)):
        r = routing.route(
            *(x, w, columns),
            num_experts=e,
            top_k=k,
            normalize=normalize,
            valid=valid,
            noise=extra,
        )
        router_gradient.token_gradient(
            *(torch.zeros(n * k, d, dtype=dtype), r.row_gate, r.gates, r.logits),
            logits=r.logits,
            position=r.position,
            columns=r.columns,
            gates=r.gates,
            weight=w,
            normalize=normalize,
        )
    router_gradient.tall_product(r.logits, x)
    spread = rows.dispatch(x, r.position)
    wide, b1 = torch.zeros(n * k, h, dtype=dtype), torch.zeros(e, h, dtype=dtype)
    b2, w1 = torch.zeros(e, d, dtype=dtype), torch.zeros(e, h, d, dtype=dtype)
    activation.gated_gelu(wide, b1, r.row_gate, r.tiles)
    activation.gated_gelu_backward(wide, wide, b1, r.row_gate, r.tiles)
    rows.combine(spread, r.position, r.experts, r.gates, b2)
    rows.combine_backward(x, r.position, r.experts, b2)
    grouped_gemm.rows_times_weight(spread, w1, r.tiles, transposed=True)
    grouped_gemm.rows_times_weight(wide, w1, r.tiles, transposed=False)
    grouped_gemm.weight_gradient(wide, spread, r.offsets)
    queries = slots.gather(spread, r.position, r.experts, b2)
    slots.scatter(queries, r.gates, r.position)
    slots.scatter(queries, None, r.position)
    slots.scatter_backward(spread, queries, r.gates, r.position)


if __name__ == "__main__":
    main(getattr(torch, sys.argv[1]))
