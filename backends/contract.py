"""What every backend offers, and nothing more.

An array is NumPy's or CuPy's.  Outside this package arrays are used through their own operators and methods and
through NumPy's functions, which hand CuPy arrays to CuPy (NEP 13 and NEP 18); whatever the two must do differently
is a method here.  There is no `empty`: no memory is read before it is written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from .geometry import Geometry

Array: TypeAlias = npt.NDArray[Any]
Kernel: TypeAlias = Any  # what a backend's `prepare` made of a kernel (D, C, K, K): it has that shape
Result = TypeVar("Result")


class Peepholes(NamedTuple):
    """The three peephole weights, each (C,) or (C, H, W)."""

    p_i: Array
    p_f: Array
    p_o: Array


class Gates(NamedTuple):
    """What one step's gates keep for their backward; `activations` and `tanh_c` are for the backend that made them."""

    activations: Array  # i, f, g, o after their non-linearities, in the backend's own order of memory
    tanh_c: Array
    c_previous: Array  # (N, C, H, W)
    c: Array  # (N, C, H, W)
    peepholes: Peepholes | None


class KernelGradient(Protocol):
    """The gradient to one kernel, summed over time steps."""

    def add(self, x: Array, dz: Array) -> None:
        """Take a step: what was convolved, (N, C, H, W), and the gradient to what came out, (N, D, H', W')."""

    def total(self) -> Array | None:
        """Return the sum, (D, C, K, K), None where there was no step; nothing may be added after."""


class Backend(Protocol):
    """Arrays of one kind, and the work that depends on the kind."""

    @property
    def name(self) -> str:
        """What `get_backend` calls it: "numpy", "cupy", "cupy:1"."""

    @property
    def description(self) -> str:
        """The machine behind it, for the record of a run."""

    def zeros(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        """Return an array of zeros on this backend."""

    def asarray(self, host: Array) -> Array:
        """Return a NumPy array's values as an array of this backend, dtype unchanged."""

    def to_numpy(self, array: Array) -> Array:
        """Return an array of this backend as a NumPy array."""

    def owns(self, array: object) -> bool:
        """Say whether `array` is an array of this backend (and on its device)."""

    def contiguous(self, array: Array) -> Array:
        """Return the same axes and values with memory in the order of the axes; the array itself where it is so."""

    def channels_last(self, array: Array) -> Array:
        """Return the same axes (…, C, H, W) and values, with memory in the order (…, H, W, C) of the gates."""

    def add(self, a: Array, b: Array) -> Array:
        """Return a + b of two maps (N, C, H, W), with memory in the order of `channels_last`."""

    def map_samples(self, work: Callable[[slice], Result], samples: int, column_elements: int) -> list[Result]:
        """Run `work` on consecutive ranges of samples that cover 0 … samples - 1; return the results in order.

        Args:
            work: called with a slice of the sample axis, perhaps on another thread; it must not call `map_samples`.
            samples: length of the sample axis, ≥ 1.
            column_elements: elements of the largest array that one sample's convolutions index.
        """

    def prepare(self, W: Array, geometry: Geometry, height: int, width: int) -> Kernel:
        """Return a kernel (D, C, K, K) as `convolve` and `gradient_input` use it on height × width maps many times."""

    def join(
        self, W_x: Array, W_h: Array, over_x: Geometry, over_h: Geometry, height: int, width: int
    ) -> tuple[Kernel, Kernel] | None:
        """Return the kernels of W_x ∗ x + W_h ∗ h as one convolution of [x, h], and of W_h ∗ h, prepared.

        None where one convolution of both is not faster than two.
        """

    def convolve(self, x: Array, W: Kernel, geometry: Geometry) -> Array:
        """Return W ∗ x: (N, C, H, W) with (D, C, K, K) to (N, D, H', W'); see convolution.py."""

    def gradient_input(self, dz: Array, W: Kernel, geometry: Geometry, height: int, width: int) -> Array:
        """Return the gradient of `convolve` to its height × width input, (N, C, H, W)."""

    def gradient_weights(self, x: Array, dz: Array, geometry: Geometry) -> Array:
        """Return the gradient of `convolve` to its kernel, (D, C, K, K), summed over N."""

    def kernel_gradient(self, W: Kernel, geometry: Geometry) -> KernelGradient:
        """Return what sums `gradient_weights` over time steps; its bits depend on the sequence of steps alone."""

    def gates_forward(
        self, z_x: Array, z_h: Array | None, bias: Array | None, c_previous: Array, peepholes: Peepholes | None
    ) -> tuple[Array, Array, Gates]:
        """Return (h, c, what the backward needs) of one step from its pre-activation z = z_x + z_h + bias.

            i = σ(z_i + p_i∘c₋)    f = σ(z_f + p_f∘c₋)    g = tanh(z_g)
            c = f∘c₋ + i∘g         o = σ(z_o + p_o∘c)     h = o∘tanh(c)

        Args:
            z_x: (N, 4C, H, W), the input's share, gates in the order i, f, g, o.
            z_h: (N, 4C, H, W), the recurrent share; None where h₋ = 0.
            bias: (4C,) or (4C, H, W) or None.
            c_previous: (N, C, H, W).
            peepholes: or None.
        """

    def gates_backward(self, dh: Array, dc: Array, gates: Gates) -> tuple[Array, Array]:
        """Return (dz, dc₋), the gradients to the pre-activation (N, 4C, H, W) and to the cell before (N, C, H, W).

        dc is what later steps sent to c.  Each line reverses the forward line of the same name:

            dz_o = dh∘tanh(c) ∘ o(1-o)
            dc  += dh∘o∘(1 - tanh²c) + p_o∘dz_o
            dz_i = dc∘g ∘ i(1-i)    dz_f = dc∘c₋ ∘ f(1-f)    dz_g = dc∘i ∘ (1-g²)
            dc₋  = dc∘f + p_i∘dz_i + p_f∘dz_f
        """

    def synchronise(self) -> None:
        """Return when all work given to the backend is done (for timing)."""


class BackendUnavailable(RuntimeError):
    """A backend was asked for by name and cannot be had; the message says what is missing and what mends it."""


def check_array(backend: Backend, name: str, array: object, dtype: np.dtype[Any], shape: tuple[int | str, ...]) -> None:
    """Check that an argument is an array of `backend` with the given dtype and shape.

    Args:
        backend: the one that is to compute with it.
        name: the argument's name in messages.
        array: the argument.
        dtype: what it must have; nothing is converted silently.
        shape: a number where the size is fixed, a letter where it is free.

    Raises:
        TypeError: it is not an array, lies on another backend or device, or has another dtype.
        ValueError: it has another shape.
    """
    if not backend.owns(array):
        raise TypeError(
            f"{name} must be an array of backend {backend.name}; got {_whereabouts(array)} "
            f"(backend.asarray takes NumPy arrays there, backend.to_numpy brings them back)"
        )
    held = getattr(array, "dtype", None)
    if held != dtype:
        raise TypeError(
            f"{name} must have dtype {dtype}; got {held} (convert it, or make the layer with another dtype)"
        )
    given: tuple[int, ...] = getattr(array, "shape", ())
    fits = all(isinstance(want, str) or want == got for want, got in zip(shape, given, strict=False))
    if len(given) != len(shape) or not fits:
        wanted = ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "")
        raise ValueError(f"{name} must have shape ({wanted}); got {given}")
    if 0 in (got for want, got in zip(shape, given, strict=True) if want != 0):
        raise ValueError(f"{name} must not be empty; got shape {given}")


def _whereabouts(array: object) -> str:
    kind = f"{type(array).__module__.split('.')[0]}.{type(array).__name__}"
    device = getattr(array, "device", None)
    return f"{kind} on {device}" if kind == "cupy.ndarray" else kind
