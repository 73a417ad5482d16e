"""Arguments as users give them: numbers and dictionaries of arrays, each checked by one line."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Mapping
from contextlib import suppress

import numpy as np

_FLOATS = frozenset((np.dtype("float32"), np.dtype("float64")))


def as_number(name: str, value: object, right: str, holds: Callable[[float], bool]) -> float:
    """Return `value` as a Python float: a number of NumPy's would make float64 of float32 arrays.

    Args:
        name: the argument's name in messages.
        value: the argument.
        right: what it must, in words: "be > 0".
        holds: the same as a function, which must be false of NaN.

    Raises:
        ValueError: `value` is not one real number, a bool, or one of which `holds` is false.
    """
    number = math.nan
    if isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool):
        with suppress(OverflowError):  # of an int that is beyond float64
            number = float(value)
    if not holds(number):
        raise ValueError(f"{name} must {right}; got {_in_one_line(value)}")
    return number


def as_integer(name: str, value: object, right: str, holds: Callable[[int], bool]) -> int:
    """Return `value` as a Python int; as `as_number`, with `right` after "be an integer"."""
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool) and holds(int(value)):
        return int(value)
    raise ValueError(f"{name} must be an integer {right}; got {_in_one_line(value)}")


def check_arrays(name: str, arrays: object) -> None:
    """Check that an argument is a dictionary of floating-point arrays, of whatever backend; no element is read.

    Raises:
        TypeError: it is not; the message names the array.
    """
    if not isinstance(arrays, Mapping):
        raise TypeError(f"{name} must be a dictionary of arrays; got {type(arrays).__name__}")
    for key, array in arrays.items():
        dtype = getattr(array, "dtype", type(array).__name__)
        if dtype not in _FLOATS:
            raise TypeError(f"{name}[{key!r}] must be an array of float32 or float64; got {dtype}")


def _in_one_line(value: object) -> str:
    return " ".join(reprlib.repr(value).split())
