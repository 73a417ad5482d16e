"""Keeps gradients from being too long.  Each rule takes all gradients of a step, once, after all time steps.

Norms are sums of squares in float64 by NumPy's own summation: `numpy.linalg.norm` goes through BLAS, whose threads
may add in another order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Literal

from convlstm.backends.contract import Array


def clip_tensors(gradients: Mapping[str, Array]) -> dict[str, Array]:
    """Divide each tensor that has any |g| > 1 by its L2 norm, the rule of the program this project grew from."""
    return {name: g / _scalar(g, _norm(g)) if float(abs(g).max()) > 1 else g for name, g in gradients.items()}


def clip_global_norm(gradients: Mapping[str, Array], max_norm: float = 1.0) -> dict[str, Array]:
    """Scale all tensors by min(1, max_norm / ‖all of them‖₂).

    Source: Pascanu, Mikolov, Bengio, "On the difficulty of training recurrent neural networks", ICML 2013.

    Raises:
        ValueError: `max_norm` is not positive.
    """
    if not max_norm > 0:
        raise ValueError(f"max_norm must be > 0; got {max_norm}")
    norm = sum(_norm(g) ** 2 for g in gradients.values()) ** 0.5
    if norm <= max_norm:
        return dict(gradients)
    return {name: g * _scalar(g, max_norm / norm) for name, g in gradients.items()}


ClippingName = Literal["none", "tensor", "global"]
CLIPPINGS: dict[ClippingName, Callable[[Mapping[str, Array]], dict[str, Array]]] = {
    "none": dict,
    "tensor": clip_tensors,
    "global": clip_global_norm,
}


def _norm(g: Array) -> float:
    squares: Array = g.astype("float64") ** 2
    return math.sqrt(squares.sum())


def _scalar(g: Array, value: float) -> float:
    return float(g.dtype.type(value))  # rounded once, so that every backend multiplies by the same number
