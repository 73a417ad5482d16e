"""Keeps gradients from being too long.  Each rule takes all gradients of a step, once, after all time steps.

Norms are sums of squares in float64 by NumPy's own summation: `numpy.linalg.norm` goes through BLAS, whose threads
may add in another order.

No rule makes a gradient with a NaN or an infinity finite: that training has diverged must be seen after it, too.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Literal, Protocol

import numpy as np

from convlstm.arguments import as_number, check_arrays
from convlstm.backends.contract import Array


class Clipping(Protocol):
    """A rule."""

    def __call__(self, gradients: Mapping[str, Array], limit: float = 1.0, /) -> dict[str, Array]:
        """Return a new dictionary; arrays that are within the limit may be the given ones.

        Raises:
            TypeError: `gradients` is not a dictionary of float32 or float64 arrays.
            ValueError: `limit` is not a number > 0.
        """


def leave(gradients: Mapping[str, Array], limit: float = 1.0) -> dict[str, Array]:
    """Return all gradients as they are, whatever the limit.

    Raises:
        TypeError, ValueError: as every `Clipping`.
    """
    _checked(gradients, limit)
    return dict(gradients)


def clip_values(gradients: Mapping[str, Array], limit: float = 1.0) -> dict[str, Array]:
    """Bring each element into -limit … limit; a tensor with an infinity or a NaN is left as it is.

    Where all is finite it is torch.nn.utils.clip_grad_value_, which makes ±limit of an infinity.

    Raises:
        TypeError, ValueError: as every `Clipping`.
    """
    limit = _checked(gradients, limit)
    clipped = {}
    for name, g in gradients.items():
        if limit < _largest(g) < math.inf:  # so the limit is a number that g's dtype holds
            bound = g.dtype.type(limit)
            g = np.minimum(np.maximum(g, -bound), bound)
        clipped[name] = g
    return clipped


def clip_tensor_norms(gradients: Mapping[str, Array], limit: float = 1.0) -> dict[str, Array]:
    """Scale each tensor g by min(1, limit / ‖g‖₂): `clip_global_norm` of each by itself.

    Raises:
        TypeError, ValueError: as every `Clipping`.
    """
    limit = _checked(gradients, limit)
    return {name: clip_global_norm({name: g}, limit)[name] for name, g in gradients.items()}


def clip_global_norm(gradients: Mapping[str, Array], limit: float = 1.0) -> dict[str, Array]:
    """Scale all tensors by min(1, limit / ‖all of them‖₂).

    A NaN anywhere makes all NaN; an infinity becomes NaN and what is finite beside it 0.  It differs from
    torch.nn.utils.clip_grad_norm_, which divides by the norm + 10⁻⁶ and so clips to a little less than the limit.
    Source: Pascanu, Mikolov, Bengio, "On the difficulty of training recurrent neural networks", ICML 2013.

    Raises:
        TypeError, ValueError: as every `Clipping`.
    """
    limit = _checked(gradients, limit)
    unit, norm = _norm_of_all(gradients.values())
    if norm <= limit / unit:
        return dict(gradients)
    return {name: g * _scalar(g, limit / unit / norm) for name, g in gradients.items()}


def normalise_tensors(gradients: Mapping[str, Array], limit: float = 1.0) -> dict[str, Array]:
    """Divide each tensor that has any |g| > limit by its L2 norm, the rule of the program this project grew from.

    Such a tensor has norm 1 afterwards, whatever the limit: with a limit below 1 it may become longer.  A tensor with
    a NaN is left as it is; an infinity becomes NaN and what is finite beside it 0.

    Raises:
        TypeError, ValueError: as every `Clipping`.
    """
    limit = _checked(gradients, limit)
    return {name: _normalised(g) if _largest(g) > limit else g for name, g in gradients.items()}


ClippingName = Literal["none", "value", "tensor", "global", "normalise"]
CLIPPINGS: dict[ClippingName, Clipping] = {
    "none": leave,
    "value": clip_values,
    "tensor": clip_tensor_norms,
    "global": clip_global_norm,
    "normalise": normalise_tensors,
}


def _checked(gradients: Mapping[str, Array], limit: float) -> float:
    """Return the limit, or raise as `Clipping`."""
    check_arrays("gradients", gradients)
    return as_number("limit", limit, "be > 0", lambda number: number > 0)


def _normalised(g: Array) -> Array:
    """Return g / ‖g‖₂; where g's dtype does not hold the norm, by way of g over its largest element."""
    norm = _norm(g)
    if norm > float(np.finfo(g.dtype).max) and (largest := _largest(g)) < math.inf:
        return _normalised(g / largest)
    return g / _scalar(g, norm)


def _norm_of_all(tensors: Collection[Array]) -> tuple[float, float]:
    """Return a unit and ‖all tensors‖₂ in it: 1, or the largest |g| where squares are too large for float64."""
    norm = sum(_norm(g) ** 2 for g in tensors) ** 0.5
    unit = max(map(_largest, tensors)) if norm == math.inf else math.inf
    if unit < math.inf:
        return unit, sum(_norm(g.astype("float64") / unit) ** 2 for g in tensors) ** 0.5
    return 1.0, norm


def _norm(g: Array) -> float:
    with np.errstate(over="ignore"):  # an infinite norm is told by its value
        squares: Array = g.astype("float64") ** 2
        return math.sqrt(squares.sum())


def _largest(g: Array) -> float:
    return float(abs(g).max()) if g.size else 0.0


def _scalar(g: Array, value: float) -> float:
    return float(g.dtype.type(value))  # rounded once, so that every backend multiplies by the same number
