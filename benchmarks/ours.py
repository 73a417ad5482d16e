"""This project's own contenders."""

from __future__ import annotations

import numpy as np

from benchmarks.contest import Entrant, Found, usable_backend
from benchmarks.shapes import Shape
from convlstm import NextFrame
from convlstm.backends import Array
from convlstm.optimizers import SGD

LEARNING_RATE = 1e-3


def weights_of(shape: Shape) -> dict[str, Array]:
    """Return the weights that everybody starts from."""
    return NextFrame(shape.Cin, (shape.C,), shape.K, backend="numpy").parameters


def our_model(shape: Shape, backend: str) -> NextFrame:
    """Return one layer and a read-out, with the weights of `weights_of`.

    Raises:
        Skipped: the backend is not to be had here.
    """
    usable_backend(backend)
    return NextFrame(shape.Cin, (shape.C,), shape.K, backend=backend)


def our_training(shape: Shape, frames: Array, backend: str) -> Entrant:
    """Return a training step on a backend; raises as `our_model`."""
    model, optimizer = our_model(shape, backend), SGD(LEARNING_RATE)
    there = model.backend.asarray(frames)

    def step() -> None:
        _, gradients = model.loss_and_gradients(there)
        optimizer.step(model.parameters, gradients)
        model.backend.synchronise()

    def result() -> Found:
        loss, gradients = model.loss_and_gradients(there)
        on_host = {name: model.backend.to_numpy(gradient) for name, gradient in gradients.items()}
        return {"loss": np.asarray(loss), **on_host}

    return Entrant(step, result)


def our_forecast(shape: Shape, frames: Array, backend: str) -> Entrant:
    """Return a forecast of the frame after the first T on a backend; raises as `our_model`."""
    model = our_model(shape, backend)
    shown = model.backend.asarray(np.ascontiguousarray(frames[:, : shape.T]))

    def step() -> None:
        model.forecast(shown, 1)
        model.backend.synchronise()

    return Entrant(step, lambda: {"frame": model.backend.to_numpy(model.forecast(shown, 1)[0][:, 0])})
