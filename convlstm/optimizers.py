"""How parameters move: each optimizer's `step` puts new arrays in place of the old ones and changes none."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

import numpy as np

from convlstm.backends.contract import Array


class Optimizer(Protocol):
    """Moves parameters against their gradients."""

    learning_rate: float

    def step(self, parameters: dict[str, Array], gradients: Mapping[str, Array]) -> None:
        """Replace every array of `parameters`."""


class SGD:
    """w ← w - η g."""

    def __init__(self, learning_rate: float) -> None:
        self.learning_rate = _positive("learning_rate", learning_rate)

    def step(self, parameters: dict[str, Array], gradients: Mapping[str, Array]) -> None:
        for name, w in parameters.items():
            parameters[name] = w - self.learning_rate * gradients[name]


class Adam:
    """m ← β₁ m + (1-β₁) g,  v ← β₂ v + (1-β₂) g²,  w ← w - η m̂ / (√v̂ + ε) with m̂ = m/(1-β₁ᵗ), v̂ = v/(1-β₂ᵗ).

    Source: Kingma and Ba, "Adam: a method for stochastic optimization", ICLR 2015, algorithm 1.
    """

    def __init__(self, learning_rate: float, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8) -> None:
        self.learning_rate = _positive("learning_rate", learning_rate)
        self.beta1, self.beta2 = _below_one("beta1", beta1), _below_one("beta2", beta2)
        self.epsilon = _positive("epsilon", epsilon)
        self.steps = 0
        self.m: dict[str, Array] = {}
        self.v: dict[str, Array] = {}

    def step(self, parameters: dict[str, Array], gradients: Mapping[str, Array]) -> None:
        self.steps += 1
        m_scale = self.learning_rate / (1 - self.beta1**self.steps)
        v_scale = 1 / (1 - self.beta2**self.steps)
        for name, w in parameters.items():
            g = gradients[name]
            self.m[name] = self.beta1 * self.m.get(name, 0) + (1 - self.beta1) * g
            self.v[name] = self.beta2 * self.v.get(name, 0) + (1 - self.beta2) * (g * g)
            parameters[name] = w - m_scale * self.m[name] / (np.sqrt(v_scale * self.v[name]) + self.epsilon)


def _positive(name: str, value: float) -> float:
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be > 0 and finite; got {value}")
    return value


def _below_one(name: str, value: float) -> float:
    if not 0 <= value < 1:
        raise ValueError(f"{name} must lie in 0 … 1, without 1; got {value}")
    return value
