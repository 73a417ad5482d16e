"""How far two numbers lie apart, counted in numbers of their format."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def ulp_distance(a: np.floating[Any], b: np.floating[Any]) -> int | None:
    """Return how many steps from number to next number lead from a to b; None for NaN, infinity and over 64 bits."""
    if a.dtype.itemsize > 8 or not (math.isfinite(a) and math.isfinite(b)):
        return None
    return abs(_ordered(a) - _ordered(b))


def _ordered(a: np.floating[Any]) -> int:
    """Return the place of a number in the order of all of its format; those of 0 and -0 are the same."""
    bits = int(np.asarray(a).view(f"i{a.dtype.itemsize}"))
    return bits if bits >= 0 else -(bits & (2 ** (8 * a.dtype.itemsize - 1) - 1))
