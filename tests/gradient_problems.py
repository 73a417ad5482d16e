"""Smooth losses with their right gradients, for the tests of the gradient check."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from convlstm import check_gradients
from convlstm.backends import Array
from convlstm.gradcheck import Report

Shape = tuple[int, ...]

THREE = {"W_x": (4, 6), "W_h": (4, 4), "b": (5,)}


class Problem:
    """Σ tanh²(Σ A_p·p), a smooth loss of any parameters, in whose gradient no two entries are equal."""

    def __init__(self, shapes: dict[str, Shape], seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        size = sum(math.prod(shape) for shape in shapes.values())
        self.parameters = {name: rng.normal(size=shape) for name, shape in shapes.items()}
        self.A = {name: rng.normal(0, size**-0.5, (size + 1, math.prod(shape))) for name, shape in shapes.items()}

    def tanh(self, parameters: dict[str, Array]) -> Array:
        return np.tanh(sum(self.A[name] @ parameter.ravel() for name, parameter in parameters.items()))

    def loss(self, parameters: dict[str, Array]) -> float:
        return float((self.tanh(parameters) ** 2).sum())

    def gradients(self, parameters: dict[str, Array]) -> dict[str, Array]:
        t = self.tanh(parameters)
        return {name: ((2 * t * (1 - t**2)) @ A).reshape(parameters[name].shape) for name, A in self.A.items()}

    def gradients_at_start(self) -> dict[str, Array]:
        return self.gradients(self.parameters)

    def check(self, changed: dict[str, Array], sizes: dict[str, int] | None = None) -> Report:
        """Check the right gradients with some of them changed."""
        return check_gradients(self.loss, self.parameters, {**self.gradients_at_start(), **changed}, sizes=sizes)


RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 3))
PARAMETERS = {"W": RNG.normal(size=(4, 3)), "b": RNG.normal(size=4)}


def loss(parameters: Mapping[str, Array]) -> float:
    """Σ tanh²(W x + b), of whatever dtype the parameters are."""
    x = X.astype(parameters["W"].dtype)
    return float((np.tanh(x @ parameters["W"].T + parameters["b"]) ** 2).sum())


def gradients(parameters: Mapping[str, Array]) -> dict[str, Array]:
    x = X.astype(parameters["W"].dtype)
    t = np.tanh(x @ parameters["W"].T + parameters["b"])
    dz = 2 * t * (1 - t**2)
    return {"W": dz.T @ x, "b": dz.sum(axis=0)}


RIGHT = gradients(PARAMETERS)
