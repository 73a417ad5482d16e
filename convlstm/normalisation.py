"""Layer normalisation of a step's pre-activation, forward and backward.

Over all M = 4C·H·W numbers of a sample's map, whatever the batch and the time step:

    μ = mean(z)    σ² = mean((z - μ)²)    ẑ = (z - μ) / √(σ² + ε)

Backward, with δẑ = dL/dẑ; μ and σ depend on every z, which is where the two means come from:

    δz = (δẑ - mean(δẑ) - ẑ∘mean(δẑ∘ẑ)) / √(σ² + ε)

Source: Ba, Kiros, Hinton, "Layer normalization", arXiv:1607.06450, eq. 3, on the sum W_x∗x + W_h∗h₋ of all four gates.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from convlstm.backends.contract import Array

EPSILON = 1e-5


class Normalised(NamedTuple):
    """What the backward needs."""

    z: Array  # ẑ, (N, 4C, H, W)
    scale: Array  # 1/√(σ² + ε), (N, 1, 1, 1)


def normalise_forward(z: Array) -> Normalised:
    """Return ẑ and 1/√(σ² + ε) of (N, 4C, H, W)."""
    centred = z - _mean(z)
    variance = _mean(centred * centred)
    scale: Array = 1 / np.sqrt(variance + EPSILON)
    return Normalised(centred * scale, scale)


def normalise_backward(dz: Array, normalised: Normalised) -> Array:
    """Return the gradient to z from dz, that to ẑ; both (N, 4C, H, W)."""
    z, scale = normalised
    gradient: Array = (dz - _mean(dz) - z * _mean(dz * z)) * scale
    return gradient


def _mean(maps: Array) -> Array:
    """Return each sample's mean, (N, 1, 1, 1), added up in float64: one number stands for many."""
    mean: Array = maps.mean(axis=(1, 2, 3), keepdims=True, dtype="float64")
    return mean.astype(maps.dtype)
