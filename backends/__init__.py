"""Backends: who owns the arrays.  `get_backend` is the one way to one."""

from __future__ import annotations

import functools
import importlib
import os
import re
from types import ModuleType

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
        if error.name == "cupy":
            return f"the package CuPy is not installed; {_INSTALL}"
        return f"the package CuPy is incomplete ({error}); reinstall it: {_INSTALL}"
    except Exception as error:  # CuPy wraps what its own import meets, and an old CuPy fails on a new NumPy in any way
        return f"the package CuPy is installed but does not import ({_reason(error)}); reinstall it: {_INSTALL}"
    if not hasattr(cupy, "cuda"):  # a folder that an uninstall left behind imports as an empty package
        return f"the package CuPy is incomplete (it has no cupy.cuda); reinstall it: {_INSTALL}"
    try:
        cupy.cuda.nvrtc.getVersion()  # compiles the kernels; CuPy loads both libraries only when they are asked for
        _ = cupy.cuda.cublas  # multiplies the matrices; without it Chainer takes no CuPy arrays
    except Exception as error:
        return f"CUDA's libraries cannot be loaded ({_reason(error)}); {_install_libraries(cupy)}"
    try:
        devices = int(cupy.cuda.runtime.getDeviceCount())
        if devices and device >= devices:
            here = "only device 0" if devices == 1 else f"devices 0 to {devices - 1}"
            return f"there is no device {device}: this machine has {here}, as nvidia-smi shows"
        if not devices or not cupy.cuda.is_available():
            return _NO_DEVICE
    except Exception as error:
        return _runtime_fault(cupy, error)
    try:
        _try_out(cupy, device)
    except Exception as error:
        return _computing_fault(cupy, device, error)
    return None


_INSTALL = 'pip install "convlstm[cuda13]" (NVIDIA driver ≥ 580) or "convlstm[cuda12]" (≥ 525)'
_NO_DEVICE = "the CUDA driver finds no device; see nvidia-smi, and unset CUDA_VISIBLE_DEVICES if it hides them"


def _install_libraries(cupy: ModuleType) -> str:
    """Return the command that brings the libraries of the CuPy that is here: two CuPys break each other."""
    major = cupy.cuda.driver.get_build_version() // 1000
    return f'pip install "convlstm[cuda{major}]"' if major in (12, 13) else f"pip uninstall CuPy, then {_INSTALL}"


def _runtime_fault(cupy: ModuleType, error: Exception) -> str:
    """Return the line for what CUDA says when it is asked for its devices."""
    text = _reason(error)
    if "NoDevice" in text:
        return _NO_DEVICE
    if any(sign in text for sign in ("InsufficientDriver", "StubLibrary", "DriverMismatch", "CompatNotSupported")):
        known, needed = int(cupy.cuda.runtime.driverGetVersion()), cupy.cuda.driver.get_build_version() // 1000
        state = f"knows CUDA {known // 1000}.{known % 1000 // 10}, too old" if known else "is missing"
        least = {12: " ≥ 525", 13: " ≥ 580"}.get(needed, "")
        return (
            f"the NVIDIA driver {state} for a CuPy of CUDA {needed} ({text}); "
            f"install driver{least} (on Ubuntu: sudo ubuntu-drivers install) and check with nvidia-smi"
        )
    return f"the CUDA driver does not start ({text}); check with nvidia-smi"


@functools.cache
def _try_out(cupy: ModuleType, device: int) -> None:
    """Compile a kernel and multiply matrices once: headers, compiler, driver and device must fit each other."""
    with cupy.cuda.Device(device):
        one = cupy.zeros((1, 1), "float32") + 1
        product = float((one @ one)[0, 0])
    if product != 1:
        raise RuntimeError(f"1 · 1 came out as {product}")


def _computing_fault(cupy: ModuleType, device: int, error: Exception) -> str:
    text = _reason(error)
    if any(sign in text for sign in ("cannot open source file", "could not open source file", "CUDA root directory")):
        return f"CUDA's headers cannot be found ({text}); {_install_libraries(cupy)}"
    show = "python -c 'import cupy; cupy.show_config()'"
    return f"device {device} is there, but a first computation on it fails ({text}); check with nvidia-smi and {show}"


def _reason(error: Exception) -> str:
    """Return the first line that says something; CuPy puts the cause of a failed import behind a banner."""
    said = error.__cause__ if isinstance(error, ImportError) and error.__cause__ is not None else error
    lines = [line.strip(" =\t") for line in str(said).splitlines()]
    return next((line for line in lines if line), type(said).__name__)
