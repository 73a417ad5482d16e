"""Keras 3 on PyTorch: its ConvLSTM2D, channels last as it comes, a Conv2D as read-out, PyTorch's differentiation."""

from __future__ import annotations

import os
import tempfile
from typing import Any

import numpy as np

from benchmarks.contest import Entrant, Found
from benchmarks.measure import Skipped, package
from benchmarks.ours import LEARNING_RATE
from benchmarks.shapes import Shape
from convlstm.backends import Array
from convlstm.foreign_weights import from_keras, to_keras


def _keras() -> tuple[Any, Any]:
    """Return (keras, torch); Keras chooses what it computes with, and writes its settings, when it is imported.

    Raises:
        Skipped: one is not installed, or Keras was imported before with something else below it.
    """
    torch = package("torch")
    os.environ["KERAS_BACKEND"] = "torch"
    with tempfile.TemporaryDirectory() as home:
        os.environ.setdefault("KERAS_HOME", home)
        keras = package("keras")
        if os.environ["KERAS_HOME"] == home:
            del os.environ["KERAS_HOME"]
    if keras.backend.backend() != "torch":
        raise Skipped(f"Keras was imported with the backend {keras.backend.backend()}")
    return keras, torch


def _model(keras: Any, shape: Shape, parameters: dict[str, Array], every: bool) -> Any:
    """Return layer and read-out with these weights: of every h, or of the last."""
    layer = keras.layers.ConvLSTM2D(
        shape.C, shape.K, padding="same", data_format="channels_last", return_sequences=every
    )  # fmt: skip
    readout = keras.layers.Conv2D(shape.Cin, 1, data_format="channels_last")
    head = keras.layers.TimeDistributed(readout) if every else readout
    model = keras.Sequential([keras.Input((shape.T, shape.H, shape.W, shape.Cin), batch_size=shape.N), layer, head])
    layer.set_weights(to_keras(parameters, "layers.0."))
    readout.set_weights([parameters["readout.W"].transpose(2, 3, 1, 0), parameters["readout.b"]])
    return model


def _channels_last(torch: Any, frames: Array) -> Any:
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(frames, -3, -1)))


def training(shape: Shape, parameters: dict[str, Array], frames: Array) -> Entrant:
    """Return a training step; raises as `_keras`."""
    keras, torch = _keras()
    with keras.device("cpu"):
        model = _model(keras, shape, parameters, every=True)
    x = _channels_last(torch, frames)
    held = [variable.value for variable in model.trainable_variables]
    optimizer = torch.optim.SGD(held, lr=LEARNING_RATE)

    def backward() -> Any:
        optimizer.zero_grad()
        with keras.device("cpu"):
            loss = torch.nn.functional.mse_loss(model(x[:, :-1], training=True), x[:, 1:])
        loss.backward()
        return loss

    def step() -> None:
        backward()
        optimizer.step()

    def result() -> Found:
        loss = backward().item()
        kernel, recurrent, b, W_y, b_y = (weight.grad.numpy().copy() for weight in held)
        read = {"readout.W": W_y.transpose(3, 2, 0, 1), "readout.b": b_y}
        return {"loss": np.asarray(loss), **from_keras([kernel, recurrent, b], "layers.0."), **read}

    return Entrant(step, result)


def forecast(shape: Shape, parameters: dict[str, Array], frames: Array) -> Entrant:
    """Return a forecast of the frame after the first T; raises as `_keras`."""
    keras, torch = _keras()
    with keras.device("cpu"):
        model = _model(keras, shape, parameters, every=False)
    x = _channels_last(torch, frames[:, : shape.T])

    def predicted() -> Any:
        with keras.device("cpu"), torch.no_grad():
            return model(x, training=False)

    return Entrant(predicted, lambda: {"frame": np.moveaxis(predicted().numpy(), -1, -3)})
