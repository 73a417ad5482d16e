"""CuPy: the whole batch at once on one CUDA device, the gates of a step in one kernel each way.

Chainer convolves without cuDNN (CuPy 14 has none): columns by a kernel of its own, the product by cuBLAS.  A batch
whose columns would be too many is computed in ranges of samples, a sample whose columns are too many in strips of rows.
Nothing here waits for the device but `to_numpy` and `synchronise`.
"""

from __future__ import annotations

from collections.abc import Callable

import cupy
import numpy as np
import numpy.typing as npt

from . import cuda_kernels, cuda_products, cupy_strips
from .contract import Array, Backend, Gates, Kernel, Peepholes, Result
from .convolution import chainer, without_graph
from .cuda_kernels import NULL
from .cuda_memory import clear_memory_errors
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
        one and would leave its results there.  How float32 matrices are multiplied is settled for the whole process.
        """
        cupy.cuda.Device(device).use()
        self.tf32 = cuda_products.choose_precision(cupy)
        self.device = device
        self.name = "cupy" if device == 0 else f"cupy:{device}"

    @property
    def description(self) -> str:
        properties = cupy.cuda.runtime.getDeviceProperties(self.device)
        runtime = cupy.cuda.runtime.runtimeGetVersion()
        products = cuda_products.described(tf32=self.tf32)
        return f"{properties['name'].decode()}, CUDA runtime {runtime}, CuPy {cupy.__version__}, {products}"

    def zeros(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        with cupy.cuda.Device(self.device), clear_memory_errors():
            return cupy.zeros(shape, dtype)  # type: ignore[no-any-return]

    def asarray(self, host: Array) -> Array:
        with cupy.cuda.Device(self.device), clear_memory_errors():
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
        with cupy.cuda.Device(self.device):  # a result lies in the order of its axes, whatever that of a and b is
            total = cupy.moveaxis(a, 1, -1) + cupy.moveaxis(b, 1, -1)
            return cupy.moveaxis(total, -1, 1)  # type: ignore[no-any-return]

    def map_samples(self, work: Callable[[slice], Result], samples: int, column_elements: int) -> list[Result]:
        at_once = max(1, min(samples, MOST_COLUMN_ELEMENTS // max(1, column_elements)))
        # CuPy 13 still has cuDNN, some of whose algorithms give other bits on every run.
        with cupy.cuda.Device(self.device), without_graph(), chainer.using_config("use_cudnn", "never"):
            parts = [slice(start, min(start + at_once, samples)) for start in range(0, samples, at_once)]
            with clear_memory_errors(samples=at_once):
                return [work(part) for part in parts]

    def prepare(self, W: Array, geometry: Geometry, height: int, width: int) -> Kernel:
        return W

    def join(
        self, W_x: Array, W_h: Array, over_x: Geometry, over_h: Geometry, height: int, width: int
    ) -> tuple[Kernel, Kernel] | None:
        return None

    def convolve(self, x: Array, W: Kernel, geometry: Geometry) -> Array:
        return cupy_strips.convolve(x, W, geometry, MOST_COLUMN_ELEMENTS)

    def gradient_input(self, dz: Array, W: Kernel, geometry: Geometry, height: int, width: int) -> Array:
        return cupy_strips.gradient_input(dz, W, geometry, height, width, MOST_COLUMN_ELEMENTS)

    def gradient_weights(self, x: Array, dz: Array, geometry: Geometry) -> Array:
        return cupy_strips.gradient_weights(x, dz, geometry, MOST_COLUMN_ELEMENTS)

    def kernel_gradient(self, W: Kernel, geometry: Geometry) -> StepByStep:
        return StepByStep(self.gradient_weights, geometry)

    def gates_forward(
        self, z_x: Array, z_h: Array | None, bias: Array | None, c_previous: Array, peepholes: Peepholes | None
    ) -> tuple[Array, Array, Gates]:
        N, C, H, W = c_previous.shape
        kept = self._zero_maps(c_previous, 4 * C, C)
        activations, tanh_c = kept[0].reshape(N, H, W, 4, C), kept[1]
        c, h = self._zero_maps(c_previous, C, C)  # not in one array with what a forecast forgets at once
        with cupy.cuda.Device(self.device):
            cuda_kernels.launch(
                "gates_forward",
                c_previous.dtype,
                (N, C, H, W),
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
        dz, dc_previous = self._zero_maps(gates.c, 4 * C, C)
        with cupy.cuda.Device(self.device):
            cuda_kernels.launch(
                "gates_backward",
                dh.dtype,
                (N, C, H, W),
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

    def _zero_maps(self, like: Array, *channels: int) -> list[Array]:
        """Return maps (N, H, W, channels[k]) of zeros, in one piece of memory: one launch sets them all to zero."""
        N, _, H, W = like.shape
        ends = np.cumsum([N * H * W * C for C in channels]).tolist()
        memory = self.zeros((ends[-1],), like.dtype)
        return [memory[end - N * H * W * C : end].reshape(N, H, W, C) for end, C in zip(ends, channels, strict=True)]


def _channels_last(maps: Array) -> Array:
    """(…, C, H, W) → (…, H, W, C), contiguous; no copy where memory already lies so."""
    return cupy.ascontiguousarray(cupy.moveaxis(maps, -3, -1))  # type: ignore[no-any-return]


def _parameter(weights: Array | None) -> tuple[object, np.int32]:
    """Return a parameter as the kernels take it: its pointer and whether it is per pixel."""
    if weights is None:
        return NULL, np.int32(0)
    return cupy.ascontiguousarray(weights), np.int32(weights.ndim == 3)


def _peephole_arguments(peepholes: Peepholes | None) -> tuple[object, ...]:
    if peepholes is None:
        return NULL, NULL, NULL, np.int32(0)
    (p_i, per_pixel), (p_f, _), (p_o, _) = (_parameter(weights) for weights in peepholes)
    return p_i, p_f, p_o, per_pixel


_: type[Backend] = CupyBackend  # the type checker holds it against the contract
