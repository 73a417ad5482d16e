"""How the CuPy backend compiles and launches the gates' kernels; test_cuda_gates.py has what they compute."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from convlstm.backends import Array, cuda_gates, get_backend

N, C, H, W = 1, 2, 3, 5


def maps(channels: int, dtype: str, value: float | None = None) -> Array:
    host = np.random.default_rng(0).standard_normal((N, channels, H, W))
    return get_backend("cupy").asarray((host if value is None else np.full_like(host, value)).astype(dtype))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_subnormal_numbers_stay(cupy: Any, dtype: str) -> None:
    """A cell of a few of the smallest numbers there are, and half of each a step later: σ(0) = ½, i·g = 0."""
    backend = get_backend("cupy")
    tiny = float(np.finfo(dtype).smallest_subnormal)
    zero, few = maps(4 * C, dtype, 0.0), maps(C, dtype, 6 * tiny)
    _, c, kept = backend.gates_forward(zero, None, None, few, None)
    assert np.unique(backend.to_numpy(c)).tolist() == [3 * tiny]
    nothing = maps(C, dtype, 0.0)
    _, dc_previous = backend.gates_backward(nothing, few, kept)
    assert np.unique(backend.to_numpy(dc_previous)).tolist() == [3 * tiny]


def test_they_are_compiled_once_for_each_dtype(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if hasattr(cupy, "__file__"):
        pytest.skip("on a device they may be there from before")
    compiled: list[tuple[str, tuple[str, ...]]] = []
    inner = cupy.cuda.compiler.compile_using_nvrtc

    def compile_using_nvrtc(source: str, options: tuple[str, ...], **named: str) -> Any:
        compiled.append((source.splitlines()[0], options))
        return inner(source, options, **named)

    monkeypatch.setattr(cupy.cuda.compiler, "compile_using_nvrtc", compile_using_nvrtc)
    backend = get_backend("cupy")
    for dtype in ("float32", "float64", "float32"):
        _, _, kept = backend.gates_forward(maps(4 * C, dtype), None, None, maps(C, dtype), None)
        backend.gates_backward(maps(C, dtype), maps(C, dtype), kept)
    assert compiled == [
        ("#define REAL float", cuda_gates.OPTIONS),
        ("#define REAL double", cuda_gates.OPTIONS),
    ]


def test_a_raw_kernel_is_never_made(cupy: Any) -> None:
    """CuPy would compile it to flush subnormal numbers; the stand-in has none, so that the tests notice."""
    if not hasattr(cupy, "__file__"):
        assert not hasattr(cupy, "RawKernel")


def test_more_elements_than_threads(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = get_backend("cupy")
    z, c = maps(4 * C, "float64"), maps(C, "float64")
    whole = [backend.to_numpy(array) for array in backend.gates_forward(z, z, None, c, None)[:2]]
    import convlstm.backends.cuda_kernels as cuda_kernels

    monkeypatch.setattr(cuda_kernels, "MOST_BLOCKS", 1)
    monkeypatch.setattr(cuda_gates, "THREADS_PER_BLOCK", 4)
    strided = [backend.to_numpy(array) for array in backend.gates_forward(z, z, None, c, None)[:2]]
    for found, right in zip(strided, whole, strict=True):
        assert found.tobytes() == right.tobytes()
