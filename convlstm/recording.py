"""A backend that computes as another does and keeps all that goes in and comes out, each array under a name.

Samples are taken one after the other, so that the record has one order.  On NumPy a sample's bits are the same in any
company; on CuPy the batch is computed at once, as always, and each sample's share is kept.

Which layer and which step a call is for is known by the arrays in it: a kernel belongs to one layer, what the gates
keep to one step.  Each layer's steps, and the read-out's, are counted from t = 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from convlstm.backends import Array, Backend
from convlstm.backends.contract import Gates, Kernel, KernelGradient, Peepholes
from convlstm.backends.geometry import Geometry
from convlstm.frame_model import FrameModel
from convlstm.layer import ConvLSTM

Host = npt.NDArray[Any]
GATES = ("i", "f", "g", "o")
CONVOLVED = {  # what a kernel is laid on
    "W_x": "x",
    "W_h": "h of the step before",
    "W_xh": "x and h of the step before",
}
PRODUCT = {"W_x": "W_x ∗ x", "W_h": "W_h ∗ h", "W_xh": "W_x ∗ x + W_h ∗ h"}


@dataclass(frozen=True)
class Operation:
    """One call of the backend for one sample: what went in, what came out; maps are (C, H, W)."""

    inputs: dict[str, Host]
    outputs: dict[str, Host]


@dataclass
class RecordingBackend:
    """Computes on `inner` and keeps a list of operations."""

    inner: Backend
    kernels: dict[int, tuple[str, str]]  # by id of the array: (layer, "W_x" or "W_h"), ("readout", "W")
    operations: list[Operation] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._samples = slice(0, 1)
        self._steps: dict[str, int] = {}  # of each layer and the read-out so far
        self._convolved: list[tuple[str, str, Array, Array]] = []  # (layer, kernel, in, out) since the last gates
        self._places: dict[int, str] = {}  # by the id of the gates' activations
        self._place = ""  # of the gates' backward that was last
        self._read: dict[int, str] = {}  # the read-out's places by the id of the hidden map
        self._reading = ""  # that of its backward that was last
        self._keep: list[object] = []  # what ids stand for must live as long as they are asked for

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def contiguous(self, array: Array) -> Array:
        """A kernel in another order of memory is still the same kernel."""
        ordered = self.inner.contiguous(array)
        if id(array) in self.kernels:
            self.kernels[id(ordered)] = self.kernels[id(array)]
            self._keep.append(ordered)
        return ordered

    def prepare(self, W: Array, geometry: Geometry, height: int, width: int) -> Kernel:
        """A kernel as the backend uses it is still the same kernel."""
        kernel = self.inner.prepare(W, geometry, height, width)
        if id(W) in self.kernels:
            self.kernels[id(kernel)] = self.kernels[id(W)]
            self._keep.append(kernel)
        return kernel

    def join(
        self, W_x: Array, W_h: Array, over_x: Geometry, over_h: Geometry, height: int, width: int
    ) -> tuple[Kernel, Kernel] | None:
        """Two kernels side by side are a third one of the same layer."""
        kernels = self.inner.join(W_x, W_h, over_x, over_h, height, width)
        for kernel, name in zip(kernels or (), ("W_xh", "W_h"), strict=False):
            self.kernels[id(kernel)] = self.kernels[id(W_h)][0], name
            self._keep.append(kernel)
        return kernels

    def map_samples(self, work: Callable[[slice], Any], samples: int, column_elements: int) -> list[Any]:
        """Call `work` for one sample after the other, or for the batch where the backend takes it whole."""

        def one(part: slice) -> Any:
            self._samples = part
            self._steps.clear()
            return work(part)

        if self.inner.name.startswith("numpy"):
            return [r for n in range(samples) for r in self.inner.map_samples(_of_sample(one, n), 1, column_elements)]
        return self.inner.map_samples(one, samples, column_elements)

    def convolve(self, x: Array, W: Kernel, geometry: Geometry) -> Array:
        """W ∗ x, of a gate or of the read-out."""
        z = self.inner.convolve(x, W, geometry)
        layer, kernel = self.kernels[id(W)]
        self._keep += [x, z]
        if layer == "readout":
            self._read[id(x)] = self._next(layer)
            self._note(self._read[id(x)], {"h": x}, {"W ∗ h": z})
        else:
            self._convolved.append((layer, kernel, x, z))
        return z

    def gates_forward(
        self, z_x: Array, z_h: Array | None, bias: Array | None, c_previous: Array, peepholes: Peepholes | None
    ) -> tuple[Array, Array, Gates]:
        """The gates of a step, after the convolutions that were for it."""
        place = self._next(self._convolved[-1][0])
        roles: dict[int, str] = {}
        for _, kernel, x, z in self._convolved:
            roles[id(z)] = PRODUCT[kernel]
            self._note(place, {CONVOLVED[kernel]: x}, {roles[id(z)]: z})
        self._convolved.clear()
        h, c, gates = self.inner.gates_forward(z_x, z_h, bias, c_previous, peepholes)
        given = {roles.get(id(z), "normalised z"): z for z in (z_x, z_h) if z is not None}
        self._note(place, {**given, "c of the step before": c_previous}, {**_by_gate(gates), "c": c, "h": h})
        self._places[id(gates.activations)] = place
        self._keep.append(gates.activations)
        return h, c, gates

    def gates_backward(self, dh: Array, dc: Array, gates: Gates) -> tuple[Array, Array]:
        """The gates' backward of a step; the gradients that are asked for next are of that step."""
        self._place = self._places[id(gates.activations)]
        dz, dc_previous = self.inner.gates_backward(dh, dc, gates)
        C = dc.shape[1]
        parts = {f"δ of gate {gate}": dz[:, k * C : (k + 1) * C] for k, gate in enumerate(GATES)}
        outputs = {**parts, "δc of the step before": dc_previous}
        self._note(self._place, {"δh": dh, "δc": dc, **_by_gate(gates), "c": gates.c}, outputs)
        return dz, dc_previous

    def gradient_input(self, dz: Array, W: Kernel, geometry: Geometry, height: int, width: int) -> Array:
        """δx or δh₋ of the step whose gates' backward was last, or the read-out's δh."""
        dx = self.inner.gradient_input(dz, W, geometry, height, width)
        layer, kernel = self.kernels[id(W)]
        if layer == "readout":
            self._note(self._reading, {"δz": dz}, {"δh": dx})
        else:
            self._note(self._place, {"δz": dz}, {f"δ{CONVOLVED[kernel]}": dx})
        return dx

    def gradient_weights(self, x: Array, dz: Array, geometry: Geometry) -> Array:
        """A step's share of the gradient to the read-out's W."""
        dW = self.inner.gradient_weights(x, dz, geometry)
        self._reading = self._read[id(x)]
        self._note(self._reading, {"δz": dz}, {})
        self.note_gradient(f"{self._reading}: share of the gradient to W", dW)
        return dW

    def kernel_gradient(self, W: Kernel, geometry: Geometry) -> RecordedGradient:
        """The gradient to W_x or W_h over the steps."""
        return RecordedGradient(self, self.inner.kernel_gradient(W, geometry), *self.kernels[id(W)])

    def note_step(self, dz: Array) -> None:
        """Keep what goes into the gradient to a kernel from the step whose gates' backward was last."""
        self._note(self._place, {"δz": dz}, {})

    def note_gradient(self, name: str, gradient: Array) -> None:
        """Keep a gradient of the samples that are being computed."""
        first, last = self._samples.start, self._samples.stop - 1
        samples = f"sample {first}" if first == last else f"samples {first} … {last}"
        self.operations.append(Operation({}, {f"{samples}, {name}": np.array(self.inner.to_numpy(gradient))}))

    def _next(self, layer: str) -> str:
        """Return the place of the next step of a layer."""
        t = self._steps.get(layer, 0)
        self._steps[layer] = t + 1
        return f"t = {t}, {layer}"

    def _note(self, place: str, inputs: dict[str, Array | None], outputs: dict[str, Array]) -> None:
        """Keep an operation, once for each sample."""
        first = self._samples.start
        for n in range(self._samples.stop - first):
            sample = f"sample {first + n}, {place}"
            kept = [
                {f"{sample}: {name}": np.array(self.inner.to_numpy(a[n])) for name, a in named.items() if a is not None}
                for named in (inputs, outputs)
            ]
            self.operations.append(Operation(*kept))


@dataclass
class RecordedGradient:
    """The gradient to one kernel, summed as the backend does."""

    recording: RecordingBackend
    inner: KernelGradient
    layer: str
    kernel: str

    def add(self, x: Array, dz: Array) -> None:
        """Take a step."""
        self.recording.note_step(dz)
        self.inner.add(x, dz)

    def total(self) -> Array | None:
        """Return the sum; nothing may be added after."""
        found = self.inner.total()
        if found is not None:
            self.recording.note_gradient(f"{self.layer}: gradient to {self.kernel}", found)
        return found


def _by_gate(gates: Gates) -> dict[str, Array]:
    """Return i, f, g and o, each (N, C, H, W), from either backend's order of memory."""
    N, C, H, W = gates.c.shape
    a = gates.activations
    of_gate = [a[:, k].reshape(N, H, W, C) if a.ndim == 4 else a[:, :, :, k] for k in range(4)]
    return {f"gate {name}": maps.transpose(0, 3, 1, 2) for name, maps in zip(GATES, of_gate, strict=True)}


def _of_sample(work: Callable[[slice], Any], n: int) -> Callable[[slice], Any]:
    """Return what calls `work` for sample n, whichever slice it is given."""
    return lambda _: work(slice(n, n + 1))


@contextmanager
def recorded_operations(model: FrameModel) -> Iterator[list[Operation]]:
    """Keep all operations of a model's `loss_and_gradients` inside, in the order in which they are done.

    It must not be asked to recompute, which does operations twice.
    """
    backend = model.backend
    kernels = {id(model.parameters["readout.W"]): ("readout", "W")}
    for layer in model.layers:
        for kernel in {"W_x", "W_h"} & layer.parameters.keys():
            kernels[id(model.parameters[layer.name + kernel])] = (layer.name.rstrip("."), kernel)
    recording: Any = RecordingBackend(backend, kernels)
    parts: list[FrameModel | ConvLSTM] = [model, *model.layers]
    try:
        for part in parts:
            part.backend = recording
        yield recording.operations
    finally:
        for part in parts:
            part.backend = backend
