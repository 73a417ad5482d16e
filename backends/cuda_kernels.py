"""The kernels of cuda_gates.py on a CUDA device: compiled once for each device and dtype, and launched.

`cupy.RawKernel` would be shorter, but CuPy, 13.6 and 14.2 alike, appends ``-ftz=true`` to its options (`compiler.py`,
`_compile_with_cache_cuda`), and of two options that contradict each other NVRTC takes the last: subnormal numbers would
be flushed to zero, whatever was asked for.  `compile_using_nvrtc`, one level below, adds what the compiler needs and
nothing else.  It keeps no file of what it compiled, so every process compiles the two kernels once more.
"""

from __future__ import annotations

from typing import Any

import cupy
import numpy as np

from . import cuda_gates

REALS = {"f": "float", "d": "double"}  # NumPy's character of a dtype to C's word for it
NULL = np.uintp(0)  # a pointer to nothing: the kernels' word for "not given"
MOST_BLOCKS = 2**16  # the kernels stride over what is left


def launch(name: str, dtype: np.dtype[Any], maps: tuple[int, int, int, int], *arguments: object) -> None:
    """Start a kernel on the current device, over N·H·W·C threads or as many as it takes.

    Args:
        name: "gates_forward" or "gates_backward".
        dtype: float32 or float64, that of all arrays.
        maps: (N, C, H, W).
        arguments: those behind the kernel's size, pixels and C: arrays in C order, `NULL`, np.int32.
    """
    N, C, H, W = maps
    size = N * C * H * W
    blocks = min(-(-size // cuda_gates.THREADS_PER_BLOCK), MOST_BLOCKS)
    sizes = (np.int64(size), np.int64(H * W), np.int32(C))
    kernel = _module(dtype.char).get_function(name)
    kernel((blocks,), (cuda_gates.THREADS_PER_BLOCK,), (*sizes, *arguments))


@cupy.memoize(for_each_device=True)  # type: ignore[untyped-decorator]
def _module(dtype: str) -> Any:
    """Return both kernels, compiled for the current device."""
    source = f"#define REAL {REALS[dtype]}\n{cuda_gates.SOURCE}"
    binary, _ = cupy.cuda.compiler.compile_using_nvrtc(source, cuda_gates.OPTIONS, filename="gates.cu")
    module = cupy.cuda.Module()
    module.load(binary)
    return module
