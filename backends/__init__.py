"""Backends: who owns the arrays.  `get_backend` is the one way to one."""

from __future__ import annotations

import functools
import importlib
import os
import re

from .contract import Array, Backend, BackendUnavailable

__all__ = ["Array", "Backend", "BackendUnavailable", "available_backends", "get_backend"]


def get_backend(name: str = "auto") -> Backend:
    """Return the backend called `name`.

    Args:
        name: "numpy"; "cupy" (device 0) or "cupy:1" (device 1); "auto" for what the environment variable
            CONVLSTM_BACKEND names or, where that is unset or "auto" too, CuPy if it finds a device, else NumPy.

    Raises:
        ValueError: `name` is none of these, or CONVLSTM_THREADS is not an integer ≥ 1.
        BackendUnavailable: CuPy was asked for by name and its package, CUDA libraries, driver or device is missing.
    """
    source = "backend"
    if name == "auto":
        name, source = os.environ.get("CONVLSTM_BACKEND") or "auto", "CONVLSTM_BACKEND"
    if name == "auto":
        return _cupy(0) if _cupy_fault() is None else _numpy(_threads())
    if name == "numpy":
        return _numpy(_threads())
    match = re.fullmatch(r"cupy(?::(\d+))?", name) if isinstance(name, str) else None
    if match is None:
        raise ValueError(f'{source} must be "auto", "numpy", "cupy" or "cupy:<device number>"; got {name!r}')
    device = int(match[1] or 0)
    fault = _cupy_fault(device)
    if fault is not None:
        raise BackendUnavailable(f"backend {name!r} is not available: {fault}")
    return _cupy(device)


def available_backends() -> dict[str, str | None]:
    """Return every backend's name with None where it can be used, else the line that says what is missing."""
    found: dict[str, str | None] = {"numpy": None}
    fault = _cupy_fault()
    if fault is not None:
        return {**found, "cupy": fault}
    devices = importlib.import_module("cupy").cuda.runtime.getDeviceCount()
    return {**found, "cupy": None, **{f"cupy:{device}": None for device in range(1, devices)}}


@functools.cache
def _numpy(threads: int) -> Backend:
    from .numpy_backend import NumpyBackend

    return NumpyBackend(threads)


@functools.cache
def _cupy(device: int) -> Backend:
    from .cupy_backend import CupyBackend

    return CupyBackend(device)


def _threads() -> int:
    """Return CONVLSTM_THREADS, by default the number of processors this process may use."""
    given = os.environ.get("CONVLSTM_THREADS", "")
    if not given:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not given.isdecimal() or int(given) < 1:
        raise ValueError(f"CONVLSTM_THREADS must be an integer ≥ 1; got {given!r}")
    return int(given)


def _cupy_fault(device: int = 0) -> str | None:
    """Return None where CuPy can use `device`, else one line: which part is missing, and what mends it.

    The four parts are looked for from the top down: package, CUDA libraries, driver, device.
    """
    try:
        cupy = importlib.import_module("cupy")
    except ModuleNotFoundError as error:
        if error.name != "cupy":
            return f"CuPy's package is incomplete ({error}); reinstall it: {_INSTALL}"
        return f"the package CuPy is not installed; {_INSTALL}"
    except ImportError as error:
        return f"CuPy cannot load its CUDA libraries ({_first_line(error)}); {_INSTALL}"
    try:
        devices = int(cupy.cuda.runtime.getDeviceCount())
    except Exception as error:  # CuPy raises errors of its own, of other libraries and plain ones here
        return _runtime_fault(error)
    if devices == 0:
        return "the CUDA driver finds no device; check with nvidia-smi, and CUDA_VISIBLE_DEVICES"
    if device >= devices:
        return f"there is no device {device}: this machine has {devices} (cupy:0 … cupy:{devices - 1})"
    if not cupy.cuda.is_available():
        return f"CuPy finds {devices} device(s) but cannot use them; check with python -c 'import cupy; cupy.show_config()'"
    return None


_INSTALL = 'pip install "convlstm[cuda13]" (NVIDIA driver ≥ 580) or "convlstm[cuda12]"'


def _runtime_fault(error: Exception) -> str:
    text = _first_line(error)
    if "NoDevice" in text:
        return "the CUDA driver finds no device; check with nvidia-smi, and CUDA_VISIBLE_DEVICES"
    if "InsufficientDriver" in text or "libcuda.so" in text or "nvcuda" in text:
        return f"the NVIDIA driver is missing or too old for CuPy's CUDA ({text}); install one, then check with nvidia-smi"
    if isinstance(error, (ImportError, OSError)) or "failed to load" in text.lower():
        return f"CuPy cannot load its CUDA libraries ({text}); {_INSTALL}"
    return f"the CUDA runtime does not start ({text}); check with nvidia-smi"


def _first_line(error: Exception) -> str:
    lines = [line.strip(" =\t") for line in str(error).splitlines()]
    return next((line for line in lines if line), type(error).__name__)
