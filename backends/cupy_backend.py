"""CuPy: the whole batch at once on one CUDA device, the gates of a step in one kernel each way.

Chainer convolves without cuDNN (CuPy 14 has none): columns by a kernel of its own, the product by cuBLAS.  A batch
whose columns would be too large is computed in ranges of samples.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cupy
import numpy as np
import numpy.typing as npt

from . import cuda_gates
from .contract import Array, Backend, Gates, Kernel, Peepholes, Result
from .convolution import chainer, convolve, gradient_input, gradient_weights, without_graph
from .geometry import Geometry
from .kernel_gradient import StepByStep

# Chainer's im2col and col2im kernels count with int; long before 2**31 the columns, and the product's own copy of them,
# would fill the device's memory.  These are 1 GiB in float32, enough for a product to keep any device busy.
MOST_COLUMN_ELEMENTS = 2**28


class CupyBackend:
    """Arrays in the memory of one CUDA device."""

    def __init__(self, device: int) -> None:
        """Use the device with this number, which the caller has made sure is there.

        It becomes this thread's current device: arithmetic outside the backend, an optimizer's say, runs on the current
        one and would leave its results there.
        """
        cupy.cuda.Device(device).use()
        self.device = device
        self.name = "cupy" if device == 0 else f"cupy:{device}"

    @property
    def description(self) -> str:
        properties = cupy.cuda.runtime.getDeviceProperties(self.device)
        runtime = cupy.cuda.runtime.runtimeGetVersion()
        return f"{properties['name'].decode()}, CUDA runtime {runtime}, CuPy {cupy.__version__}"

    def zeros(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        with cupy.cuda.Device(self.device):
            return cupy.zeros(shape, dtype)  # type: ignore[no-any-return]

    def asarray(self, host: Array) -> Array:
        with cupy.cuda.Device(self.device):
            return cupy.asarray(host)  # type: ignore[no-any-return]

    def to_numpy(self, array: Array) -> Array:
        return cupy.asnumpy(array)  # type: ignore[no-any-return]

    def owns(self, array: object) -> bool:
        return isinstance(array, cupy.ndarray) and array.device.id == self.device

    def contiguous(self, array: Array) -> Array:
        with cupy.cuda.Device(self.device):
            return cupy.ascontiguousarray(array)  # type: ignore[no-any-return]

    def channels_last(self, array: Array) -> Array:
        with cupy.cuda.Device(self.device):
            return cupy.moveaxis(_channels_last(array), -1, -3)  # type: ignore[no-any-return]

    def add(self, a: Array, b: Array) -> Array:
        return self.channels_last(a + b)

    def map_samples(self, work: Callable[[slice], Result], samples: int, column_elements: int) -> list[Result]:
        at_once = max(1, min(samples, MOST_COLUMN_ELEMENTS // max(1, column_elements)))
        # CuPy 13 still has cuDNN, some of whose algorithms give other bits on every run.
        with cupy.cuda.Device(self.device), without_graph(), chainer.using_config("use_cudnn", "never"):
            return [work(slice(start, min(start + at_once, samples))) for start in range(0, samples, at_once)]

    def prepare(self, W: Array, geometry: Geometry, height: int, width: int) -> Kernel:
        return W

    convolve = staticmethod(convolve)
    gradient_input = staticmethod(gradient_input)
    gradient_weights = staticmethod(gradient_weights)

    def kernel_gradient(self, W: Kernel, geometry: Geometry) -> StepByStep:
        return StepByStep(self.gradient_weights, geometry)

    def gates_forward(
        self, z_x: Array, z_h: Array | None, bias: Array | None, c_previous: Array, peepholes: Peepholes | None
    ) -> tuple[Array, Array, Gates]:
        N, C, H, W = c_previous.shape
        activations = self.zeros((N, H, W, 4, C), c_previous.dtype)
        tanh_c, c, h = (self.zeros((N, H, W, C), c_previous.dtype) for _ in range(3))
        self._launch(
            "gates_forward",
            (N, C, H, W),
            c_previous.dtype,
            _channels_last(z_x),
            NULL if z_h is None else _channels_last(z_h),
            *_parameter(bias),
            *_peephole_arguments(peepholes),
            _channels_last(c_previous),
            activations,
            tanh_c,
            c,
            h,
        )
        c_map = cupy.moveaxis(c, -1, 1)
        return cupy.moveaxis(h, -1, 1), c_map, Gates(activations, tanh_c, c_previous, c_map, peepholes)

    def gates_backward(self, dh: Array, dc: Array, gates: Gates) -> tuple[Array, Array]:
        N, C, H, W = gates.c.shape
        dz = self.zeros((N, H, W, 4 * C), dh.dtype)
        dc_previous = self.zeros((N, H, W, C), dh.dtype)
        self._launch(
            "gates_backward",
            (N, C, H, W),
            dh.dtype,
            *_peephole_arguments(gates.peepholes),
            gates.activations,
            gates.tanh_c,
            _channels_last(gates.c_previous),
            _channels_last(dh),
            _channels_last(dc),
            dz,
            dc_previous,
        )
        return cupy.moveaxis(dz, -1, 1), cupy.moveaxis(dc_previous, -1, 1)

    def synchronise(self) -> None:
        cupy.cuda.Device(self.device).synchronize()

    def _launch(self, kernel: str, shape: tuple[int, int, int, int], dtype: np.dtype[Any], *arguments: object) -> None:
        N, C, H, W = shape
        size = N * C * H * W
        blocks = min(-(-size // cuda_gates.THREADS_PER_BLOCK), 2**16)  # the kernels stride over what is left
        with cupy.cuda.Device(self.device):
            _kernel(kernel, dtype.char)(
                (blocks,),
                (cuda_gates.THREADS_PER_BLOCK,),
                (np.int64(size), np.int64(H * W), np.int32(C), *arguments),
            )


NULL = np.uintp(0)  # a pointer to nothing: the kernel's word for "not given"


@cupy.memoize(for_each_device=True)  # type: ignore[untyped-decorator]
def _kernel(name: str, dtype: str) -> Any:
    real = {"f": "float", "d": "double"}[dtype]
    return cupy.RawKernel(f"#define REAL {real}\n{cuda_gates.SOURCE}", name, options=cuda_gates.OPTIONS)


def _channels_last(maps: Array) -> Array:
    """(…, C, H, W) → (…, H, W, C), contiguous; no copy where memory already lies so."""
    return cupy.ascontiguousarray(cupy.moveaxis(maps, -3, -1))  # type: ignore[no-any-return]


def _parameter(weights: Array | None) -> tuple[object, np.int32]:
    """Return a parameter as the kernels take it: its pointer and whether it is per pixel."""
    if weights is None:
        return NULL, np.int32(0)
    per_pixel = weights.ndim == 3
    return _channels_last(weights) if per_pixel else cupy.ascontiguousarray(weights), np.int32(per_pixel)


def _peephole_arguments(peepholes: Peepholes | None) -> tuple[object, ...]:
    if peepholes is None:
        return NULL, NULL, NULL, np.int32(0)
    (p_i, per_pixel), (p_f, _), (p_o, _) = (_parameter(weights) for weights in peepholes)
    return p_i, p_f, p_o, per_pixel


_: type[Backend] = CupyBackend  # the type checker holds it against the contract
