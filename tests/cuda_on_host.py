"""Runs the kernels of backends/cuda_gates.py without a GPU: compiled as C++ for this machine, one thread after another.

A launch is checked more strictly than CUDA checks it: every argument must have the kind and size of its parameter, and
every array must lie in C order, since a kernel sees nothing but a pointer.
"""

from __future__ import annotations

import ctypes
import functools
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

COMPILER = shutil.which("g++") or shutil.which("c++") or shutil.which("clang++")
NO_COMPILER = "no C++ compiler (g++, c++ or clang++) to run the CUDA source on this machine"

# What CUDA declares for every kernel.  A global `tanh(float)` is one of them; C++ has it in std alone.
BEFORE = """
#include <cmath>
#include <cstddef>
#include <string>
#include <utility>
#define __global__
#define __device__
static struct { unsigned x; } threadIdx, blockIdx, blockDim, gridDim;
using std::tanh;
"""

# How CUDA calls a kernel: one pointer to each argument's value.
AFTER = """
template <class T> struct kind_of;
template <class T> struct kind_of<T*> { static const char value = 'P'; };
template <> struct kind_of<int> { static const char value = 'i'; };
template <> struct kind_of<long long> { static const char value = 'q'; };

template <class... A> std::string kinds_of(void (*)(A...)) { return {kind_of<A>::value...}; }

template <class... A, std::size_t... I>
void call(void (*kernel)(A...), void** values, std::index_sequence<I...>) { kernel(*static_cast<A*>(values[I])...); }

template <class... A> void launch(void (*kernel)(A...), unsigned blocks, unsigned threads, void** values)
{
    gridDim.x = blocks;
    blockDim.x = threads;
    for (blockIdx.x = 0; blockIdx.x < blocks; ++blockIdx.x)
        for (threadIdx.x = 0; threadIdx.x < threads; ++threadIdx.x)
            call(kernel, values, std::index_sequence_for<A...>());
}
"""
EACH = """
extern "C" const char* kinds_{name}() {{ static const std::string kinds = kinds_of({name}); return kinds.c_str(); }}
extern "C" void launch_{name}(unsigned blocks, unsigned threads, void** values)
{{
    launch({name}, blocks, threads, values);
}}
"""


@functools.cache
def compile_for_host(source: str) -> ctypes.CDLL:
    """Return CUDA source as a loaded library, with `launch_NAME` and `kinds_NAME` for each of its kernels.

    Warnings are errors; a multiplication and an addition are never fused, as cuda_gates.OPTIONS has it.
    """
    assert COMPILER is not None, NO_COMPILER
    kernels = re.findall(r'extern "C" __global__ void (\w+)', source)
    with tempfile.TemporaryDirectory() as folder:
        program, library = Path(folder, "kernels.cpp"), Path(folder, "kernels.so")
        launches = "".join(EACH.format(name=name) for name in kernels)
        program.write_text(BEFORE + source + AFTER + launches, encoding="utf-8")
        options = ["-std=c++14", "-O2", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
        done = subprocess.run(
            [COMPILER, *options, "-o", str(library), str(program)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return ctypes.CDLL(str(library))  # a loaded library outlives its file


def host_kernel(source: str, name: str) -> Callable[[Sequence[int], Sequence[int], Sequence[object]], None]:
    """Return a kernel to be called as CuPy calls one: (grid, block, arguments)."""
    library = compile_for_host(source)
    kinds_of_parameters, run = library[f"kinds_{name}"], library[f"launch_{name}"]
    kinds_of_parameters.restype = ctypes.c_char_p
    run.argtypes = [ctypes.c_uint, ctypes.c_uint, ctypes.POINTER(ctypes.c_void_p)]
    run.restype = None

    def launch(grid: Sequence[int], block: Sequence[int], arguments: Sequence[object]) -> None:
        kinds = "".join(_kind(argument) for argument in arguments)
        expected = kinds_of_parameters().decode()
        if kinds != expected:
            raise TypeError(f"kernel {name} takes arguments of kinds {expected}; got {kinds}")
        (blocks,), (threads,) = grid, block
        values = [_value(argument) for argument in arguments]
        run(blocks, threads, (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values)))

    return launch


def _kind(argument: object) -> str:
    """Say what a parameter must be to take this argument: P a pointer, i 32 bits, q 64 bits."""
    if isinstance(argument, np.ndarray) or (isinstance(argument, np.uintp) and argument == 0):
        return "P"
    if isinstance(argument, np.int32):
        return "i"
    return "q" if isinstance(argument, np.int64) else "?"


def _value(argument: object) -> ctypes.c_void_p | ctypes.c_int32 | ctypes.c_int64:
    if isinstance(argument, np.ndarray):
        if not argument.flags.c_contiguous:
            raise ValueError(
                f"a kernel was given an array that is not in C order: {argument.shape}, {argument.strides}"
            )
        return ctypes.c_void_p(argument.ctypes.data)
    assert isinstance(argument, np.integer)
    return ctypes.c_int32(int(argument)) if argument.itemsize == 4 else ctypes.c_int64(int(argument))
