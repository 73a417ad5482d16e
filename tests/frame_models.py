"""Small models of frames with random parameters, for the tests of both kinds; and what is asked of them there."""

from __future__ import annotations

import tracemalloc
from collections.abc import Mapping
from typing import Any

import numpy as np

from convlstm.backends import Array
from convlstm.backends.numpy_backend import NumpyBackend
from convlstm.frame_model import FrameModel
from tests.numerical import freeze, read_only

DROPPING: dict[str, Any] = {"dropout": 0.3, "recurrent_dropout": 0.2}
RICH: dict[str, Any] = {"layer_norm": "pixel", "peephole": "channel", "bias": "pixel", "output": "sigmoid", **DROPPING}
Bits = tuple[str, dict[str, bytes]]


def make(kind: type[FrameModel], hidden: tuple[int, ...] = (2, 3), *, seed: int = 5, **settings: Any) -> Any:
    """Return a float64 model for maps of 4×4 whose parameters, all random, cannot be written to."""
    chosen = {"kernel_size": 3, "spatial_shape": (4, 4), "dtype": "float64", "backend": "numpy", **settings}
    model = kind(1, hidden, **chosen)
    model.backend = NumpyBackend(1)  # one thread is quickest on maps this small
    rng = np.random.default_rng(seed)
    model.parameters = read_only({name: 0.5 * rng.standard_normal(a.shape) for name, a in model.parameters.items()})
    return model


def make_frames(N: int = 2, T: int = 5, side: int = 4, seed: int = 6) -> Array:
    frames = np.random.default_rng(seed).random((N, T, 1, side, side))
    freeze(frames)
    return frames


def bits(model: Any, frames: Array, **given: Any) -> Bits:
    """Return loss and gradients so that == compares every bit."""
    loss, gradients = model.loss_and_gradients(frames, **given)
    return loss.hex(), {name: gradient.tobytes() for name, gradient in gradients.items()}


def loss_of(model: Any, frames: Array, given: Mapping[str, Any]) -> Any:
    """Return the model's loss as a function of its parameters."""

    def value(arrays: Mapping[str, Array]) -> float:
        model.parameters = dict(arrays)
        return float(model.loss_and_gradients(frames, **given)[0])

    return value


def peak_memory(model: Any, frames: Array, **given: Any) -> int:
    """Return the bytes that are held at most while loss and gradients are computed."""
    tracemalloc.start()
    try:
        model.loss_and_gradients(frames, **given)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
