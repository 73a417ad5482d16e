"""Our weights for a peer whose one kernel convolves x and h, stacked into channels; its gradients under our names."""

from __future__ import annotations

import numpy as np

from benchmarks.shapes import Shape
from convlstm.backends import Array


def joined(parameters: dict[str, Array]) -> list[Array]:
    """Return [W (4C, Cin + C, K, K), b (4C,), W_y (Cin, C, 1, 1), b_y (Cin,)]."""
    W = np.concatenate([parameters["layers.0.W_x"], parameters["layers.0.W_h"]], axis=1)
    return [W, parameters["layers.0.b"], parameters["readout.W"], parameters["readout.b"]]


def split(shape: Shape, W: Array, b: Array, W_y: Array, b_y: Array) -> dict[str, Array]:
    """Return the same, or its gradients, under our names."""
    return {
        "layers.0.W_x": W[:, : shape.Cin],
        "layers.0.W_h": W[:, shape.Cin :],
        "layers.0.b": b,
        "readout.W": W_y,
        "readout.b": b_y,
    }
