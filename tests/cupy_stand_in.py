"""A stand-in for the module `cupy` on NumPy arrays, as strict as CuPy: with it the CuPy backend runs without a GPU.

It offers only what convlstm is meant to use.  Anything else is an AttributeError or TypeError, as is everything that
CuPy refuses: a NumPy array in an operation with device arrays, a device array where NumPy wants memory of the host,
an array of another device than the current one.  Results are new arrays in C order; a sum is an array too.

Chainer knows no such arrays, so its three functions are wrapped: host arrays in, device arrays out.

What a device would do is counted in `counted`: "launch" for each kernel, product and copy, "zeros" for memory set to
zero, "transfer" for what comes from the host, "synchronisation" for whatever waits until the device is done.
"""

from __future__ import annotations

import math
import sys
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from numpy.lib.mixins import NDArrayOperatorsMixin

import convlstm.backends
from convlstm.backends import Array, convolution, cuda_gates, cuda_products
from tests.cuda_on_host import host_kernel

SCALARS = (bool, int, float, np.generic)
IMPORT_CUPY = ("cupy_backend", "cuda_kernels", "cuda_memory")  # the modules of convlstm.backends that do
counted: Counter[str] = Counter()


class Device:
    """`cupy.cuda.Device`: the current one within its `with`."""

    current = 0

    def __init__(self, device: int | None = None) -> None:
        self.id = Device.current if device is None else device
        self._outer: list[int] = []

    def __enter__(self) -> Device:
        self._outer.append(Device.current)
        Device.current = self.id
        return self

    def __exit__(self, *exception: object) -> None:
        Device.current = self._outer.pop()

    def use(self) -> None:
        Device.current = self.id

    def __repr__(self) -> str:
        return f"<CUDA Device {self.id}>"

    def synchronize(self) -> None:
        """Nothing runs behind our back."""
        counted["synchronisation"] += 1

    @property
    def compute_capability(self) -> str:
        return "90"


class ndarray(NDArrayOperatorsMixin):  # noqa: N801 - CuPy's name
    """`cupy.ndarray`: no `np.ndarray`, and its memory is out of NumPy's reach."""

    __module__ = "cupy"

    def __init__(self, memory: npt.ArrayLike, device: int | None = None) -> None:
        self.memory = np.asarray(memory)
        self.device = Device(device)

    # What reads the shape alone, or makes a view, works whatever the current device is.

    @property
    def shape(self) -> tuple[int, ...]:
        return self.memory.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.memory.dtype

    @property
    def ndim(self) -> int:
        return self.memory.ndim

    @property
    def size(self) -> int:
        return self.memory.size

    def __len__(self) -> int:
        return len(self.memory)

    def __getitem__(self, index: Any) -> ndarray:
        return ndarray(self.memory[index], self.device.id)

    def transpose(self, *axes: int) -> ndarray:
        return ndarray(self.memory.transpose(*axes), self.device.id)

    # What comes to the host.

    def get(self) -> Array:
        counted["synchronisation"] += 1
        return np.array(self.memory, order="C")

    def __float__(self) -> float:
        return float(self.get())

    def __bool__(self) -> bool:
        return bool(self.get())

    def __array__(self, *arguments: object, **named: object) -> Array:
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`")

    # What starts a kernel.

    def __setitem__(self, index: Any, value: object) -> None:
        counted["launch"] += 1
        _read(self)[index] = _read(value)

    def reshape(self, *shape: int) -> ndarray:
        view = self.memory.reshape(*shape)
        if np.shares_memory(view, self.memory):
            return ndarray(view, self.device.id)
        return _new(_read(self).reshape(*shape))

    def astype(self, dtype: npt.DTypeLike) -> ndarray:
        return _new(_read(self).astype(dtype))

    def sum(self, axis: int | None = None, dtype: str | None = None) -> ndarray:
        return _new(_read(self).sum(axis, dtype))

    def all(self) -> ndarray:
        return _new(_read(self).all())

    def mean(self, axis: Any = None, dtype: str | None = None, keepdims: bool = False) -> ndarray:
        return _new(_read(self).mean(axis, dtype, keepdims=keepdims))

    def max(self) -> ndarray:
        return _new(_read(self).max())

    def min(self) -> ndarray:
        return _new(_read(self).min())

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: object, out: tuple[ndarray, ...] = ()) -> Any:
        if method != "__call__":
            return NotImplemented
        result = ufunc(*map(_read, inputs))
        if not out:
            return _new(result)
        if not isinstance(out[0], ndarray):
            raise TypeError(f"Unsupported type {type(out[0])}")
        out[0][...] = result if isinstance(result, np.generic) else ndarray(result)
        return out[0]

    def __array_function__(self, function: Callable[..., Any], types: object, args: Any, kwargs: Any) -> Any:
        """As CuPy: the function of the same name, if there is one."""
        ours = FUNCTIONS.get(function.__name__) if function.__module__ == "numpy" else None
        return NotImplemented if ours is None else ours(*args, **kwargs)


def _read(value: object) -> Any:
    """Return what a kernel would read; raise where it could not."""
    if isinstance(value, ndarray):
        if value.device.id != Device.current:  # CuPy warns, or raises if the devices cannot reach each other
            raise ValueError(f"the array is on device {value.device.id}, the current device is {Device.current}")
        return value.memory
    if not isinstance(value, SCALARS):
        raise TypeError(f"Unsupported type {type(value)}")
    return value


def _new(memory: npt.ArrayLike, what: str = "launch") -> ndarray:
    """Return what a kernel wrote, in memory of its own."""
    counted[what] += 1
    array = np.array(memory, order="C")
    pool.take(array)
    return ndarray(array)


def asarray(host: object) -> ndarray:
    if isinstance(host, ndarray):
        return host
    return _new(np.asarray(host), "transfer")


def asnumpy(array: ndarray) -> Array:
    return array.get() if isinstance(array, ndarray) else np.asarray(array)


def zeros(shape: tuple[int, ...], dtype: npt.DTypeLike) -> ndarray:
    return _new(np.zeros(shape, dtype), "zeros")


def zeros_like(array: ndarray, *, shape: tuple[int, ...]) -> ndarray:
    return zeros(shape, array.dtype)


def moveaxis(array: ndarray, source: int, destination: int) -> ndarray:
    return ndarray(np.moveaxis(array.memory, source, destination), array.device.id)


def ascontiguousarray(array: ndarray) -> ndarray:
    return array if array.memory.flags.c_contiguous else _new(_read(array))


def pad(array: ndarray, pad_width: Any) -> ndarray:
    return _new(np.pad(_read(array), pad_width))


def tensordot(a: ndarray, b: ndarray, axes: Any) -> ndarray:
    counted["launch"] += _copied(a.memory, axes[0]) + _copied(b.memory, axes[1])
    return _new(np.tensordot(_read(a), _read(b), axes))


def _copied(operand: Array, axes: tuple[int, ...]) -> bool:
    """Say whether CuPy copies an operand before a product: as a matrix it must lie in either order of memory."""
    moved = np.moveaxis(operand, axes, range(len(axes)))
    matrix = moved.reshape(math.prod(moved.shape[: len(axes)]), -1)
    return not np.shares_memory(matrix, operand) or not (matrix.flags.c_contiguous or matrix.flags.f_contiguous)


def where(condition: ndarray, a: object, b: object) -> ndarray:
    return _new(np.where(_read(condition), _read(a), _read(b)))


def concatenate(arrays: Any, axis: int) -> ndarray:
    return _new(np.concatenate([_read(array) for array in arrays], axis=axis))


# What NumPy's functions of these names do with device arrays.
FUNCTIONS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (zeros_like, moveaxis, ascontiguousarray, pad, tensordot, where, concatenate)
}


class Module:
    """`cupy.cuda.Module`: what `compile_using_nvrtc` made, run on this machine."""

    def load(self, binary: bytes) -> None:
        self._source = binary.decode()

    def get_function(self, name: str) -> Callable[..., None]:
        launch = host_kernel(self._source, name)

        def function(grid: tuple[int, ...], block: tuple[int, ...], args: tuple[object, ...]) -> None:
            counted["launch"] += 1
            launch(grid, block, [_read(argument) for argument in args])

        return function


def compile_using_nvrtc(source: str, options: tuple[str, ...], *, filename: str) -> tuple[bytes, None]:
    assert filename.endswith(".cu")
    assert options == cuda_gates.OPTIONS  # the ones that the host compiler is given in its own words
    return source.encode(), None


class OutOfMemoryError(MemoryError):
    """`cupy.cuda.memory.OutOfMemoryError`."""

    def __init__(self, size: int, total: int, limit: int = 0) -> None:
        self._size = size
        super().__init__(f"Out of memory allocating {size:,} bytes (allocated so far: {total:,} bytes).")


class MemoryHook:
    """`cupy.cuda.MemoryHook`: is told of memory within its `with`."""

    active: list[MemoryHook] = []  # noqa: RUF012 - CuPy's are of a thread

    def __enter__(self) -> MemoryHook:
        MemoryHook.active.append(self)
        return self

    def __exit__(self, *exception: object) -> None:
        MemoryHook.active.remove(self)

    def malloc_postprocess(self, **given: int) -> None: ...

    def free_postprocess(self, **given: int) -> None: ...


class Pool:
    """CuPy's default memory pool on a device with `total` bytes."""

    def __init__(self) -> None:
        self.total, self.used = 2**40, 0

    def take(self, array: Array) -> None:
        """Give an array its memory until nobody holds it."""
        size = -(-array.nbytes // 512) * 512
        if self.used + size > self.total:
            raise OutOfMemoryError(size, self.used)
        self.used += size
        given = {"device_id": Device.current, "size": array.nbytes, "mem_size": size, "mem_ptr": 1, "pmem_id": 1}
        for hook in MemoryHook.active:
            hook.malloc_postprocess(**given)
        weakref.finalize(array, self._give_back, given)

    def _give_back(self, given: dict[str, int]) -> None:
        self.used -= given["mem_size"]
        for hook in MemoryHook.active:
            hook.free_postprocess(**given)

    def used_bytes(self) -> int:
        return self.used

    def free_bytes(self) -> int:
        return 0


pool = Pool()


def memoize(*, for_each_device: bool) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        results: dict[Any, Any] = {}

        def remembered(*arguments: object) -> Any:
            key = (Device.current if for_each_device else -1, arguments)
            if key not in results:
                results[key] = function(*arguments)
            return results[key]

        return remembered

    return decorate


def make_cupy(devices: int) -> ModuleType:
    """Return a module that looks like CuPy on a machine with this many devices."""
    cupy: Any = ModuleType("cupy")
    cupy.__version__ = "14.2.0"
    cupy.ndarray = ndarray
    cupy.get_default_memory_pool = lambda: pool
    for function in (asarray, asnumpy, zeros, memoize, *FUNCTIONS.values()):
        setattr(cupy, function.__name__, function)
    runtime = SimpleNamespace(
        getDeviceCount=lambda: devices,
        getDeviceProperties=lambda device: {"name": b"stand-in"},
        runtimeGetVersion=lambda: 13000,
        driverGetVersion=lambda: 13000,
        memGetInfo=lambda: (pool.total - pool.used, pool.total),
    )
    nvrtc = SimpleNamespace(getVersion=lambda: (13, 0))
    driver = SimpleNamespace(get_build_version=lambda: 13000)
    cupy.cuda = SimpleNamespace(Device=Device, runtime=runtime, nvrtc=nvrtc, driver=driver, cublas=SimpleNamespace())
    cupy.cuda.is_available = lambda: devices > 0
    cupy.cuda.Module, cupy.cuda.MemoryHook = Module, MemoryHook
    cupy.cuda.compiler = SimpleNamespace(compile_using_nvrtc=compile_using_nvrtc)
    cupy.cuda.memory = SimpleNamespace(OutOfMemoryError=OutOfMemoryError)
    cupy.compute_types = {}
    cupy._core = SimpleNamespace(
        _routines_linalg=SimpleNamespace(
            COMPUTE_TYPE_DEFAULT=1, COMPUTE_TYPE_TF32=7, set_compute_type=cupy.compute_types.__setitem__
        )
    )
    return cupy  # type: ignore[no-any-return]


class Chainer:
    """Chainer's functions: host arrays as ever, the stand-in's arrays in their own memory, a mixture is a TypeError."""

    def __init__(self) -> None:
        self._functions, self._im2col = convolution.F, convolution.im2col

    def convolution_2d(self, x: Any, W: Any, **geometry: Any) -> Any:
        if not isinstance(x, ndarray):
            return self._functions.convolution_2d(x, W, **geometry)
        z = self._functions.convolution_2d(_read(x), _read(W), **geometry).array
        counted["launch"] += 1 + (x.shape[0] > 1)  # the columns, and of several samples their copy for the product
        # As on a device: channels last in memory.
        return SimpleNamespace(array=moveaxis(_new(np.moveaxis(z, 1, -1)), -1, 1))

    def deconvolution_2d(self, x: Any, W: Any, **geometry: Any) -> Any:
        if not isinstance(x, ndarray):
            return self._functions.deconvolution_2d(x, W, **geometry)
        counted["launch"] += 1 + _copied(W.memory, (0,)) + _copied(x.memory, (1,))  # the product
        return SimpleNamespace(array=_new(self._functions.deconvolution_2d(_read(x), _read(W), **geometry).array))

    def im2col(self, x: Any, *numbers: int, **named: int) -> Any:
        if not isinstance(x, ndarray):
            return self._im2col(x, *numbers, **named)
        return _new(self._im2col(_read(x), *numbers, **named))


@contextmanager
def stand_in_for_cupy(devices: int = 2) -> Iterator[Any]:
    """Let `import cupy` bring the stand-in; then take back modules, backends made with it, Chainer's functions."""
    package = convlstm.backends
    with pytest.MonkeyPatch.context() as patch:
        cupy = make_cupy(devices)
        patch.setitem(sys.modules, "cupy", cupy)
        for module in IMPORT_CUPY:
            patch.delitem(sys.modules, f"{package.__name__}.{module}", raising=False)
            patch.delattr(package, module, raising=False)
        patch.setattr(cuda_products, "_perhaps_late", False)
        for variable in (cuda_products.WORKSPACE, "CONVLSTM_TF32", *cuda_products.OTHER_SWITCHES):
            patch.setenv(variable, "")  # so that it is taken back whatever happens to it
            patch.delenv(variable)
        patch.setattr(Device, "current", 0)
        chainer = Chainer()
        patch.setattr(convolution, "F", chainer)
        patch.setattr(convolution, "im2col", chainer.im2col)
        forget_backends()
        try:
            yield cupy
        finally:
            forget_backends()
            for module in IMPORT_CUPY:
                sys.modules.pop(f"{package.__name__}.{module}", None)
                vars(package).pop(module, None)


def forget_backends() -> None:
    """Make `get_backend` look and build afresh."""
    convlstm.backends._numpy.cache_clear()
    convlstm.backends._cupy.cache_clear()
