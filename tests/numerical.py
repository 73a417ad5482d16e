"""Central differences in float64, for tests: what every hand-written backward is held against."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from convlstm.backends import Array

Arrays = Mapping[str, Array]


def read_only(arrays: Arrays) -> dict[str, Array]:
    """Return copies that raise when anything writes to them."""
    copies = {name: np.array(array) for name, array in arrays.items()}
    for copy in copies.values():
        copy.flags.writeable = False
    return copies


def freeze(value: object) -> None:
    """Make every array within nested tuples, lists, dicts and dataclasses read-only, in place."""
    if isinstance(value, np.ndarray):
        value.flags.writeable = False
        return
    if isinstance(value, Mapping):
        children = list(value.values())
    elif isinstance(value, (tuple, list)):
        children = list(value)
    else:
        children = list(vars(value).values()) if hasattr(value, "__dataclass_fields__") else []
    for child in children:
        freeze(child)


def numeric_gradients(loss: Callable[[Arrays], float], arrays: Arrays, step: float = 1e-5) -> dict[str, Array]:
    """Return ∂loss/∂a for every element of every array, (loss(a + ε) - loss(a - ε)) / 2ε with error O(ε²)."""
    gradients = {}
    for name, array in arrays.items():
        gradient = np.zeros_like(array)
        for index in np.ndindex(array.shape):
            values = []
            for sign in (1, -1):
                moved = array.copy()
                moved[index] += sign * step
                values.append(loss(read_only({**arrays, name: moved})))
            gradient[index] = (values[0] - values[1]) / (2 * step)
        gradients[name] = gradient
    return gradients


def directional_error(
    loss: Callable[[Arrays], float], arrays: Arrays, gradients: Arrays, seed: int = 0, step: float = 1e-6
) -> float:
    """Return |⟨v, gradient⟩ - d/dε loss(arrays + ε v)| for one random direction v in all arrays at once.

    It is relative to √Σ (v·gradient)², the size that ⟨v, gradient⟩ has by chance, since the sum itself may nearly
    cancel.  One number for any size of arrays: a wrong element anywhere shows with probability 1.
    """
    rng = np.random.default_rng(seed)
    v = {name: rng.standard_normal(array.shape) for name, array in arrays.items()}
    ahead, behind = (
        loss(read_only({name: array + sign * step * v[name] for name, array in arrays.items()})) for sign in (1, -1)
    )
    numeric = (ahead - behind) / (2 * step)
    terms = np.concatenate([(v[name] * gradients[name]).ravel() for name in arrays])
    return float(abs(terms.sum() - numeric) / np.sqrt((terms**2).sum()))
