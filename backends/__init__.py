"""Backends: who owns the arrays.  `get_backend` is the one way to one."""

from __future__ import annotations

import functools
import importlib
import os
import re

from .contract import Array, Backend, BackendUnavailable
from .cupy_faults import cupy_fault as _cupy_fault

__all__ = ["Array", "Backend", "BackendUnavailable", "available_backends", "get_backend", "unavailable_backends"]

_LEAST_COLUMN_ELEMENTS = 2**18  # 32×32 maps of 16 channels and 3×3 taps have 147,456; two threads took longer than one


def get_backend(name: str = "auto") -> Backend:
    """Return the backend called `name`.

    Args:
        name: "numpy"; "numpy:winograd", NumPy with faster convolutions; "cupy" (device 0) or "cupy:1" (device 1);
            "auto" for what the environment variable CONVLSTM_BACKEND names or, where that is unset or "auto" too, CuPy
            if it finds a device, else NumPy.

    Raises:
        ValueError: `name` is none of these, or CONVLSTM_THREADS is not an integer ≥ 1.
        BackendUnavailable: CuPy was asked for by name and its package, CUDA libraries, driver or device is missing.
    """
    source = "backend"
    if name == "auto":
        name, source = os.environ.get("CONVLSTM_BACKEND") or "auto", "CONVLSTM_BACKEND"
    if name == "auto":
        return _cupy(0) if _cupy_fault() is None else _numpy("numpy", *_threads())
    if name in ("numpy", "numpy:winograd"):
        return _numpy(name, *_threads())
    match = re.fullmatch(r"cupy(?::(\d+))?", name) if isinstance(name, str) else None
    if match is None:
        raise ValueError(
            f'{source} must be "auto", "numpy", "numpy:winograd", "cupy" or "cupy:<device number>"; got {name!r}'
        )
    device = int(match[1] or 0)
    fault = _cupy_fault(device)
    if fault is not None:
        raise BackendUnavailable(f"backend {name!r} is not available: {fault}")
    return _cupy(device)


def available_backends() -> list[str]:
    """Return the names of the backends that can be used here, "numpy" first."""
    if _cupy_fault() is not None:
        return ["numpy"]
    devices = importlib.import_module("cupy").cuda.runtime.getDeviceCount()
    return ["numpy", "cupy", *(f"cupy:{device}" for device in range(1, devices))]


def unavailable_backends() -> dict[str, str]:
    """Return what cannot be used here: its name, and the line that says what is missing and what mends it."""
    fault = _cupy_fault()
    return {} if fault is None else {"cupy": fault}


@functools.cache
def _numpy(name: str, threads: int, least_column_elements: int) -> Backend:
    from .numpy_backend import NumpyBackend, WinogradBackend

    return (NumpyBackend if name == "numpy" else WinogradBackend)(threads, least_column_elements)


@functools.cache
def _cupy(device: int) -> Backend:
    from .cupy_backend import CupyBackend

    return CupyBackend(device)


def _threads() -> tuple[int, int]:
    """Return CONVLSTM_THREADS, and how small a sample must be for the calling thread to compute it: none.

    By default there is a thread for each processor that this process may use, but small samples are left to the calling
    one: on small maps threads spend their time waiting for the interpreter's lock.
    """
    given = os.environ.get("CONVLSTM_THREADS", "")
    if not given:
        processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return processors, _LEAST_COLUMN_ELEMENTS
    if not given.isdecimal() or int(given) < 1:
        raise ValueError(f"CONVLSTM_THREADS must be an integer ≥ 1; got {given!r}")
    return int(given), 0
