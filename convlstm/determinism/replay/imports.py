"""NumPy in place of CuPy, for a script that is replayed without a GPU."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np


def numpy_as_cupy() -> ModuleType:
    """Return a module that offers NumPy's functions under CuPy's name, and the few that only CuPy has."""
    cupy: Any = ModuleType("cupy")
    cupy.__getattr__ = lambda name: getattr(np, name)  # ndarray, zeros, empty, random, linalg, …
    cupy.__path__ = []
    cupy.__version__ = np.__version__
    cupy.asnumpy = lambda array, *_, **__: np.array(array)
    cupy.get_array_module = lambda *_: cupy
    cupy.cuda = ModuleType("cupy.cuda")
    cupy.cuda.__dict__.update(
        Device=_Nothing, Stream=_Nothing, Event=_Nothing, is_available=lambda: True,
        get_device_id=lambda: 0, runtime=SimpleNamespace(getDeviceCount=lambda: 1, deviceSynchronize=lambda: None),
    )  # fmt: skip
    cupy.cuda.Stream.null = _Nothing()
    cupy.get_default_memory_pool = cupy.get_default_pinned_memory_pool = _Nothing
    sys.modules["cupy.cuda"] = cupy.cuda
    for name in ("random", "linalg", "fft"):
        sys.modules[f"cupy.{name}"] = getattr(np, name)
    return cupy  # type: ignore[no-any-return]


class _Nothing:
    """A device, stream, event or pool with nothing to do."""

    id = 0

    def __init__(self, *_: object, **__: object) -> None:
        """Take what CuPy's takes."""

    def __enter__(self) -> _Nothing:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing was held."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: 0
