"""NumPy: one sample at a time on worker threads, each with single-threaded BLAS.

A sample is computed by the same instructions whichever thread takes it, so the bits do not depend on their number.
"""

from __future__ import annotations

import os
import platform
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from . import convolution, winograd
from .blas import limit_this_worker, single_threaded_blas
from .contract import Array, Backend, Kernel, Result
from .convolution import without_graph
from .gates import gates_backward, gates_forward
from .geometry import Geometry
from .kernel_gradient import StepsTogether

_pool_lock = threading.Lock()


class NumpyBackend:
    """Arrays in the host's memory."""

    name = "numpy"

    def __init__(self, threads: int, least_column_elements: int = 0) -> None:
        """Compute with `threads` ≥ 1 worker threads; they start with the first call that can use them.

        Samples with columns of fewer than `least_column_elements` are computed by the calling thread.
        """
        if threads < 1:
            raise ValueError(f"threads must be ≥ 1; got {threads}")
        self.threads, self.least_column_elements = threads, least_column_elements
        self._pool: ThreadPoolExecutor | None = None
        self._pool_process = os.getpid()

    def __reduce__(self) -> tuple[type[NumpyBackend], tuple[int, int]]:
        """Copies and pickles name the number of threads; threads themselves cannot be copied."""
        return type(self), (self.threads, self.least_column_elements)

    @property
    def description(self) -> str:
        return f"{platform.processor() or platform.machine()}, {self.threads} worker thread(s)"

    def zeros(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        return np.zeros(shape, dtype)

    def asarray(self, host: Array) -> Array:
        return host

    def to_numpy(self, array: Array) -> Array:
        return array

    def owns(self, array: object) -> bool:
        return isinstance(array, np.ndarray) and not isinstance(array, np.ma.MaskedArray)  # whose mask would be lost

    def contiguous(self, array: Array) -> Array:
        return np.ascontiguousarray(array)

    def channels_last(self, array: Array) -> Array:
        return np.moveaxis(np.ascontiguousarray(np.moveaxis(array, -3, -1)), -1, -3)

    def add(self, a: Array, b: Array) -> Array:
        # Written straight into its order: turning a finished sum around costs several times as much, because channels
        # that lie a power of two apart share few lines of the first-level cache.
        total: Array = np.add(a.transpose(0, 2, 3, 1), b.transpose(0, 2, 3, 1), order="C")
        return total.transpose(0, 3, 1, 2)

    def map_samples(self, work: Callable[[slice], Result], samples: int, column_elements: int) -> list[Result]:
        def one(sample: int) -> Result:
            limit_this_worker()
            with without_graph():
                return work(slice(sample, sample + 1))

        with single_threaded_blas():
            if self.threads == 1 or samples == 1 or column_elements < self.least_column_elements:
                return [one(sample) for sample in range(samples)]
            return list(self._workers().map(one, range(samples)))

    def _workers(self) -> ThreadPoolExecutor:
        with _pool_lock:
            if self._pool is None or self._pool_process != os.getpid():  # threads do not survive a fork
                self._pool = ThreadPoolExecutor(self.threads, "convlstm")
                self._pool_process = os.getpid()
            return self._pool

    def prepare(self, W: Array, geometry: Geometry, height: int, width: int) -> Kernel:
        return W

    def join(
        self, W_x: Array, W_h: Array, over_x: Geometry, over_h: Geometry, height: int, width: int
    ) -> tuple[Kernel, Kernel] | None:
        return None

    convolve = staticmethod(convolution.convolve)
    gradient_input = staticmethod(convolution.gradient_input)
    gradient_weights = staticmethod(convolution.gradient_weights_of_many)

    def kernel_gradient(self, W: Kernel, geometry: Geometry) -> StepsTogether:
        return StepsTogether(self.gradient_weights, W.shape, geometry)

    gates_forward = staticmethod(gates_forward)
    gates_backward = staticmethod(gates_backward)

    def synchronise(self) -> None:
        return None


class WinogradBackend(NumpyBackend):
    """The same with fewer multiplications where a kernel's shape allows it: see winograd.py for how it rounds."""

    name = "numpy:winograd"

    def prepare(self, W: Array, geometry: Geometry, height: int, width: int) -> Kernel:
        D, C = W.shape[:2]
        if not winograd.suits(C, D, geometry, height, width):
            return W
        return self.map_samples(lambda _: winograd.transformed(W), 1, 1)[0]  # with one thread for BLAS

    def join(
        self, W_x: Array, W_h: Array, over_x: Geometry, over_h: Geometry, height: int, width: int
    ) -> tuple[Kernel, Kernel] | None:
        joined = np.concatenate((W_x, W_h), axis=1) if over_x == over_h else None
        if joined is None or not winograd.suits(joined.shape[1], joined.shape[0], over_h, height, width):
            return None
        kernel = self.map_samples(lambda _: winograd.transformed(joined), 1, 1)[0]
        return kernel, winograd.of_channels(kernel, slice(W_x.shape[1], None))

    @staticmethod
    def convolve(x: Array, W: Kernel, geometry: Geometry) -> Array:
        if isinstance(W, winograd.TransformedKernel):
            return winograd.convolve(x, W, geometry)
        return convolution.convolve_many(x, W, geometry)

    @staticmethod
    def gradient_input(dz: Array, W: Kernel, geometry: Geometry, height: int, width: int) -> Array:
        if isinstance(W, winograd.TransformedKernel):
            return winograd.gradient_input(dz, W, geometry, height, width)
        return convolution.gradient_input(dz, W, geometry, height, width)

    @staticmethod
    def gradient_weights(x: Array, dz: Array, geometry: Geometry) -> Array:
        if winograd.suits(x.shape[1], dz.shape[1], geometry, x.shape[2], x.shape[3]):
            return winograd.gradient_weights(x, dz, geometry)
        return convolution.gradient_weights_of_many(x, dz, geometry)


_: type[Backend] = NumpyBackend  # the type checker holds it against the contract
