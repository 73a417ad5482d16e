"""Losses on predicted frames: each a sum over all elements, with its gradient directly below.

The model divides by the number of elements, so that losses and gradients are means whatever the batch was cut into.
y are the targets; z are logits, p predictions, all (N, C, H, W).

Where only some elements count, valid v = 1 there and 0 elsewhere, the mean is over those alone:

    L = Σ v l(p, y) / Σ v          ∂L/∂p = v l'(p, y) / Σ v          Σ v does not depend on p

v is not multiplied by, since 0 · ∞ is no zero: where v = 0, p and y give way to numbers whose loss and gradient are
exactly 0, see `counted`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np

from convlstm.backends.contract import Array


def squared_error(p: Array, y: Array) -> Array:
    """Return Σ (p - y)², a float64 scalar."""
    return _total((p - y) ** 2)


def squared_error_gradient(p: Array, y: Array) -> Array:
    """Return 2 (p - y)."""
    return 2 * (p - y)


def absolute_error(p: Array, y: Array) -> Array:
    """Return Σ |p - y|, a float64 scalar."""
    return _total(abs(p - y))


def absolute_error_gradient(p: Array, y: Array) -> Array:
    """Return sign(p - y): 0 where they agree, one of the subgradients there."""
    return np.sign(p - y)  # type: ignore[no-any-return]


def cross_entropy_of_logits(z: Array, y: Array) -> Array:
    """Return Σ -[y log σ(z) + (1 - y) log(1 - σ(z))] = Σ max(z, 0) - z y + log(1 + exp(-|z|)), a float64 scalar.

    The right-hand form neither overflows nor takes the logarithm of 0.
    """
    return _total(np.maximum(z, 0) - z * y + np.log1p(np.exp(-abs(z))))


def cross_entropy_of_logits_gradient(z: Array, y: Array) -> Array:
    """Return σ(z) - y."""
    return sigmoid(z) - y


def sigmoid(z: Array) -> Array:
    """Return σ(z) = ½ tanh(½ z) + ½, which cannot overflow."""
    y: Array = 0.5 * np.tanh(0.5 * z) + 0.5
    return y


def sigmoid_gradient(dy: Array, y: Array) -> Array:
    """Return dL/dz = dL/dy · σ'(z) from y = σ(z): dy · y (1 - y)."""
    dz: Array = dy * (y * (1 - y))
    return dz


class Loss(NamedTuple):
    """A loss and its gradient, and what they are to be given."""

    value: Callable[[Array, Array], Array]
    gradient: Callable[[Array, Array], Array]
    on_logits: bool  # whether they take the read-out's logits or the frames made of them
    zero_at: float  # against a target of 0, value and gradient are exactly 0 here, in float32 too


LossName = Literal["mse", "mae", "bce"]
LOSSES: dict[LossName, Loss] = {
    "mse": Loss(squared_error, squared_error_gradient, on_logits=False, zero_at=0.0),
    "mae": Loss(absolute_error, absolute_error_gradient, on_logits=False, zero_at=0.0),
    "bce": Loss(cross_entropy_of_logits, cross_entropy_of_logits_gradient, on_logits=True, zero_at=-1000.0),
}


def counted(loss: Loss, p: Array, y: Array, valid: Array | None) -> tuple[Array, Array]:
    """Return p and y as `loss` is to be given them, so that what stands where `valid` is False adds exactly 0.

    Args:
        loss: one of `LOSSES`.
        p: predictions, or logits.
        y: targets.
        valid: bool, of the same shape; None where every element counts.
    """
    if valid is None:
        return p, y
    return np.where(valid, p, loss.zero_at), np.where(valid, y, 0)


def _total(terms: Array) -> Array:
    return terms.sum(dtype="float64")  # type: ignore[no-any-return]
