"""Our backends side by side: a layer's forward and backward, a training step, and frames to the device and back.

A row for each shape and piece of work.  Results are compared with the first backend's before anything is timed.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from benchmarks.contest import Entrant, Found, Maker, contest, usable_backend
from benchmarks.measure import Rows
from benchmarks.options import Options, ours
from benchmarks.ours import our_training
from benchmarks.shapes import Shape, frames_of
from benchmarks.tables import contenders, times_table
from convlstm import ConvLSTM
from convlstm.backends import Array


def forward(shape: Shape, frames: Array, backend: str) -> Entrant:
    """Return a layer's forward over T frames, which keeps what its backward needs."""
    usable_backend(backend)
    layer = ConvLSTM(shape.Cin, shape.C, shape.K, backend=backend)
    x = layer.backend.asarray(np.ascontiguousarray(frames[:, : shape.T]))

    def step() -> None:
        layer.forward(x)
        layer.backend.synchronise()

    return Entrant(step, lambda: {"h": layer.backend.to_numpy(layer.forward(x)[0])})


def backward(shape: Shape, frames: Array, backend: str) -> Entrant:
    """Return a layer's backward from gradients to every h, to the input, the state and all parameters."""
    usable_backend(backend)
    layer = ConvLSTM(shape.Cin, shape.C, shape.K, backend=backend)
    x = layer.backend.asarray(np.ascontiguousarray(frames[:, : shape.T]))
    h, _, cache = layer.forward(x)

    def step() -> None:
        layer.backward(cache, h)
        layer.backend.synchronise()

    def result() -> Found:
        dx, _, gradients = layer.backward(cache, h)
        return {name: layer.backend.to_numpy(array) for name, array in {"x": dx, **gradients}.items()}

    return Entrant(step, result)


def to_device(shape: Shape, frames: Array, backend: str) -> Entrant:
    """Return the way of a batch of frames to the backend's memory; nothing is moved where that is the host's."""
    chosen = usable_backend(backend)

    def step() -> None:
        chosen.asarray(frames)
        chosen.synchronise()

    return Entrant(step, lambda: {"frames": chosen.to_numpy(chosen.asarray(frames))})


def from_device(shape: Shape, frames: Array, backend: str) -> Entrant:
    """Return the way of the same frames back to the host."""
    chosen = usable_backend(backend)
    there = chosen.asarray(frames)
    return Entrant(lambda: chosen.to_numpy(there), lambda: {"frames": chosen.to_numpy(there)})


WORK = {
    "forward": forward,
    "backward": backward,
    "step": our_training,
    "to the device": to_device,
    "from the device": from_device,
}


def measure(options: Options) -> Rows:
    """Return a row for each shape and piece of work.

    Raises:
        RuntimeError: two backends compute something else.
    """
    rows = {}
    for name, shape in options.shapes.items():
        frames = frames_of(shape)
        for work, make in WORK.items():
            makers: dict[str, Maker] = {
                ours(backend): partial(make, shape, frames, backend) for backend in options.backends
            }
            rows[f"{name}, {work}"] = contest(makers, options.rounds, shape=shape._asdict())
    return rows


def table(rows: Rows) -> str:
    """Return the times of every backend."""
    return times_table(rows, "shape, work", contenders(rows))
