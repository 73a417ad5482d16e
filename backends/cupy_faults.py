"""Why CuPy cannot be used here: which of package, CUDA libraries, driver and device is missing, in one line."""

from __future__ import annotations

import functools
import importlib
from types import ModuleType

from .cuda_products import fix_workspace, products_fault


def cupy_fault(device: int = 0) -> str | None:
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
    fix_workspace()  # before cuBLAS is there
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
        fault = products_fault(cupy.cuda.Device(device).compute_capability)
        if fault is not None:
            return fault
        _try_out(cupy, device)
    except Exception as error:
        return _computing_fault(cupy, device, error)
    return None


_INSTALL = (
    'in the clone, pip install ".[cuda13]" (NVIDIA driver ≥ 580) or pip install ".[cuda12]" (≥ 525); '
    "with uv, uv sync --extra cuda13"
)
_NO_DEVICE = "the CUDA driver finds no device; see nvidia-smi, and unset CUDA_VISIBLE_DEVICES if it hides them"


def _install_libraries(cupy: ModuleType) -> str:
    """Return the command that brings the libraries of the CuPy that is here: two CuPys break each other."""
    major = cupy.cuda.driver.get_build_version() // 1000
    return (
        f'in the clone, pip install ".[cuda{major}]"; with uv, uv sync --extra cuda{major}'
        if major in (12, 13)
        else f"pip uninstall CuPy, then {_INSTALL}"
    )


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
        ones = cupy.zeros((2, 2), "float32") + 1  # smaller ones CuPy multiplies without cuBLAS
        product = float((ones @ ones)[0, 0])
    if product != 2:
        raise RuntimeError(f"1 · 1 + 1 · 1 came out as {product}")


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
