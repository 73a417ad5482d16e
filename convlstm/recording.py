"""A backend that computes as another does and keeps all that goes in and comes out, each array under a name.

Samples are taken one after the other, so that the record has one order.  On NumPy a sample's bits are the same in any
company; on CuPy the batch is computed at once, as always, and each sample's share is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from convlstm.backends import Array, Backend
from convlstm.backends.contract import Gates, Peepholes
from convlstm.backends.geometry import Geometry
from convlstm.layer import ConvLSTM
from convlstm.model import NextFrame

Host = npt.NDArray[Any]
GATES = ("i", "f", "g", "o")


@dataclass(frozen=True)
class Operation:
    """One call of the backend for one sample: what went in, what came out; maps are (C, H, W)."""

    inputs: dict[str, Host]
    outputs: dict[str, Host]


@dataclass
class Place:
    """One layer's step in time, as far as the backend has been called for it."""

    name: str
    W_x: int = 0  # ids of the kernels, by which the backward's calls are known
    W_h: int = 0


@dataclass
class RecordingBackend:
    """Computes on `inner` and keeps a list of operations."""

    inner: Backend
    layers: list[str]  # names of the model's layers, first to last
    known: int  # frames that the model is shown before it reads its own
    readout: int  # id of the read-out's kernel
    operations: list[Operation] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._samples = slice(0, 1)
        self._forwards = self._readouts = self._backwards = 0  # of gates, of the read-out, of its backward
        self._convolved: list[tuple[int, Array, Array]] = []  # (id of the kernel, in, out) since the last gates
        self._places: dict[int, Place] = {}  # by the id of the gates' activations
        self._place = Place("")  # of the gates' backward that was last,
        self._dz: Array | None = None  # what it gave,
        self._weights: list[str] = []  # and whose gradients are still to be asked for with it, last to first
        self._keep: list[object] = []  # what ids stand for must live as long as they are asked for

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def map_samples(self, work: Callable[[slice], Any], samples: int, column_elements: int) -> list[Any]:
        """Call `work` for one sample after the other, or for the batch where the backend takes it whole."""

        def one(part: slice) -> Any:
            self._samples = part
            self._forwards = self._readouts = self._backwards = 0
            return work(part)

        if self.inner.name == "numpy":
            return [r for n in range(samples) for r in self.inner.map_samples(_of_sample(one, n), 1, column_elements)]
        return self.inner.map_samples(one, samples, column_elements)

    def convolve(self, x: Array, W: Array, geometry: Geometry) -> Array:
        """W ∗ x, of a gate or of the read-out."""
        z = self.inner.convolve(x, W, geometry)
        if id(W) == self.readout:
            self._note(f"t = {self._readouts}, readout", {"h": x}, {"W ∗ h": z})
            self._readouts += 1
        else:
            self._convolved.append((id(W), x, z))
            self._keep.append(W)
        return z

    def gates_forward(
        self, z_x: Array, z_h: Array | None, bias: Array | None, c_previous: Array, peepholes: Peepholes | None
    ) -> tuple[Array, Array, Gates]:
        """The gates of a step, after the two convolutions that were for it."""
        place = Place(self._name_of_next())
        self._forwards += 1
        for (W, x, z), role in zip(self._convolved, ("W_x ∗ x", "W_h ∗ h"), strict=False):
            self._note(place.name, {"x" if role == "W_x ∗ x" else "h of the step before": x}, {role: z})
            setattr(place, role[:3], W)
        self._convolved.clear()
        h, c, gates = self.inner.gates_forward(z_x, z_h, bias, c_previous, peepholes)
        given = {"W_x ∗ x": z_x, "W_h ∗ h": z_h, "c of the step before": c_previous}
        self._note(place.name, given, {**_by_gate(gates), "c": c, "h": h})
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
        self._note(self._place.name, {"δh": dh, "δc": dc, **_by_gate(gates), "c": gates.c}, outputs)
        self._dz, self._weights = dz, ["W_h", "W_x"]
        return dz, dc_previous

    def gradient_input(self, dz: Array, W: Array, geometry: Geometry, height: int, width: int) -> Array:
        """δx or δh₋ of the step whose gates' backward was last, or the read-out's δh."""
        dx = self.inner.gradient_input(dz, W, geometry, height, width)
        if id(W) == self.readout:
            self._note(self._readout_backward(), {"δz": dz}, {"δh": dx})
            self._backwards += 1
        else:
            role = "δx" if id(W) == self._place.W_x else "δh of the step before"
            self._note(self._place.name, {"δz": dz}, {role: dx})
        return dx

    def gradient_weights(self, x: Array, dz: Array, geometry: Geometry) -> Array:
        """A step's share of the gradient to W_x or, asked for after it, W_h; or to the read-out's W."""
        dW = self.inner.gradient_weights(x, dz, geometry)
        place, name = (self._place.name, self._weights.pop()) if dz is self._dz else (self._readout_backward(), "W")
        first, last = self._samples.start, self._samples.stop - 1
        samples = f"sample {first}" if first == last else f"samples {first} … {last}"
        self._note(place, {"δz": dz}, {})
        share = np.array(self.inner.to_numpy(dW))
        self.operations.append(Operation({}, {f"{samples}, {place}: share of the gradient to {name}": share}))
        return dW

    def _readout_backward(self) -> str:
        """Return the time of the read-out's next backward: that of fed-back frames last to first, then the known."""
        k, fed = self._backwards, self._readouts - self.known
        return f"t = {self._readouts - 1 - k if k < fed else k - fed}, readout"

    def _name_of_next(self) -> str:
        """Return layer and time of the next gates: all known frames layer by layer, then step by step."""
        n, L = self._forwards, len(self.layers)
        if n < L * self.known:
            layer, t = divmod(n, self.known)
        else:
            t, layer = divmod(n - L * self.known, L)
            t += self.known
        return f"t = {t}, {self.layers[layer]}"

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
def recorded_operations(model: NextFrame, known: int) -> Iterator[list[Operation]]:
    """Keep all operations of a model's `loss_and_gradients` inside, in the order in which they are done."""
    backend = model.backend
    recording: Any = RecordingBackend(
        backend, [layer.name.rstrip(".") for layer in model.layers], known, id(model.parameters["readout.W"])
    )
    parts: list[NextFrame | ConvLSTM] = [model, *model.layers]
    try:
        for part in parts:
            part.backend = recording
        yield recording.operations
    finally:
        for part in parts:
            part.backend = backend
