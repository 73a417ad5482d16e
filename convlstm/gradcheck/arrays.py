"""Arrays of anybody's program: what is taken, how it gets to the host and back; CuPy is never imported for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Array = Any  # numpy.ndarray, or cupy.ndarray, which is known by what it can do
Host = npt.NDArray[np.float64]


def check_arrays(what: str, arrays: object) -> dict[str, Array]:
    """Return `arrays` as a dict of names to arrays of floating numbers.

    Raises:
        TypeError: it is no mapping, or holds something else; the message names it.
    """
    if not isinstance(arrays, Mapping):
        raise TypeError(f"{what} must be a dictionary of arrays; got {type(arrays).__name__}")
    for name, array in arrays.items():
        if not isinstance(name, str):
            raise TypeError(f"{what} must have texts as keys; got {name!r}")
        if not isinstance(array, (np.ndarray, np.floating)) and not _on_a_device(array):
            raise TypeError(f"{what}[{name!r}] must be a NumPy or CuPy array; got {type(array).__name__}")
        if array.dtype.kind != "f":
            raise TypeError(f"{what}[{name!r}] must hold floating numbers; got dtype {array.dtype}")
    return dict(arrays)


def _on_a_device(array: object) -> bool:
    return all(hasattr(array, attribute) for attribute in ("get", "set", "dtype", "shape"))


def to_host(array: Array) -> Host:
    """Return a copy in float64 on the host."""
    return np.array(array.get() if _on_a_device(array) else array, dtype=np.float64)


def like(model: Array, host: Host, dtype: npt.DTypeLike) -> Array:
    """Return a new array with the numbers of `host`, where `model` lives."""
    numbers = np.array(host, dtype=dtype, order="C")
    if not _on_a_device(model):
        return numbers
    array = model.astype(dtype, order="C")  # a copy: on CuPy no import is needed to make an array like another
    array.set(numbers)
    return array
