"""Memory for what a convolution computes on its way, taken once for each thread and used again by every call.

New memory is dear: the operating system hands it out in pages, each at the first touch, and takes it back when a large
array is freed.  Where half of a step's arrays are such intermediate values this was a third of its time.

The memory is zero when it is taken and holds what the last call left in it afterwards, so whoever asks for an array
here must write all of it before reading any; the tests fill the workspace with NaN before every use and find the same
bits.  Nothing that a function returns may lie in it.
"""

from __future__ import annotations

import math
import threading

import numpy as np
import numpy.typing as npt

from .contract import Array


class Workspace(threading.local):
    """Arrays by name, different ones in each thread."""

    def __init__(self) -> None:
        self._memory: dict[tuple[str, str], Array] = {}

    def array(self, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        """Return the array of this name, in this shape and dtype; what it holds is of no meaning."""
        size, key = math.prod(shape), (name, np.dtype(dtype).char)
        if key not in self._memory or self._memory[key].size < size:
            self._memory[key] = np.zeros(size, dtype)
        return self._memory[key][:size].reshape(shape)


workspace = Workspace()
