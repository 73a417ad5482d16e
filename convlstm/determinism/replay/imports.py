"""NumPy in place of CuPy, for a script that is replayed without a GPU."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np


def numpy_as_cupy() -> ModuleType:
    """Return a module that offers NumPy's functions under CuPy's name, and the few that only CuPy has."""
    cupy: Any = ModuleType("cupy")
    cupy.__getattr__ = _of_numpy  # ndarray, zeros, empty, random, linalg, …
    cupy.__path__ = []
    cupy.__version__ = np.__version__
    cupy.asnumpy = lambda array, *_, **__: np.array(array)
    cupy.get_array_module = lambda *_: cupy
    cupy.fuse = lambda *given, **_: given[0] if given and callable(given[0]) else lambda function: function
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


def numpy_as_cupyx() -> ModuleType:
    """Return a module with what NumPy can do of CuPy's own additions: scatter operations and pinned memory."""
    cupyx: Any = ModuleType("cupyx")
    cupyx.__path__ = []
    cupyx.scatter_add, cupyx.scatter_max, cupyx.scatter_min = np.add.at, np.maximum.at, np.minimum.at
    for name in ("empty", "zeros"):
        setattr(cupyx, f"{name}_pinned", getattr(np, name))
        setattr(cupyx, f"{name}_like_pinned", getattr(np, f"{name}_like"))
    return cupyx  # type: ignore[no-any-return]


def _of_numpy(name: str) -> Any:
    if not hasattr(np, name):
        raise AttributeError(f"cupy.{name} has no counterpart in NumPy, so --cupy-as-numpy cannot run it")
    return getattr(np, name)


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
