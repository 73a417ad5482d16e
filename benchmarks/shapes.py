"""The shapes that everything is timed on, and the numbers that go in."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from convlstm.backends import Array
from convlstm.backends.geometry import Geometry, resolve_geometry
from convlstm.randomness import generator


class Shape(NamedTuple):
    """Sizes of one layer and its batch, in the symbols of the whole project."""

    T: int
    N: int
    Cin: int
    C: int
    H: int
    W: int
    K: int


SHAPES = {
    "shi": Shape(T=10, N=8, Cin=16, C=128, H=16, W=16, K=5),
    "wide": Shape(T=10, N=4, Cin=1, C=64, H=64, W=64, K=3),
    "small": Shape(T=5, N=4, Cin=1, C=16, H=32, W=32, K=3),
    "deep": Shape(T=10, N=8, Cin=64, C=64, H=32, W=32, K=3),
}


def frames_of(shape: Shape) -> Array:
    """Return frames (N, T+1, Cin, H, W), float32 in [0, 1): T to read, and after each of them one to predict."""
    return generator(0, "benchmark/frames").random((shape.N, shape.T + 1, shape.Cin, shape.H, shape.W), np.float32)


def recurrent_geometry(shape: Shape) -> Geometry:
    """Return the geometry of the convolution over h."""
    return resolve_geometry(shape.H, shape.W, (shape.K, shape.K))
