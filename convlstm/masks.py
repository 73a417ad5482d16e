"""Which sample has which frame, where sequences of one batch differ in length."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from convlstm.backends.contract import Backend
from convlstm.backends.geometry import as_count
from convlstm.recurrence import Valid

Mask = npt.NDArray[np.bool_]


def mask_of_lengths(lengths: npt.ArrayLike, T: int) -> Mask:
    """Return the mask (N, T) of sequences that begin together and have `lengths` (N,) frames, the rest being padding.

    Raises:
        ValueError: a length does not lie in 0 … T, or is no integer; T is not an integer ≥ 1.
    """
    T = as_count("T", T)
    try:
        given = np.asarray(lengths)
    except ValueError:  # lists within the list
        given = np.zeros((0, 0))
    if given.ndim != 1 or given.dtype.kind not in "iu" or not ((given >= 0) & (given <= T)).all():
        raise ValueError(f"lengths must be integers in 0 … T = {T}, one for each sample; got {lengths!r}")
    return np.arange(T) < given[:, None]


def check_mask(mask: Mask | None, shape: tuple[int, ...], name: str = "mask") -> None:
    """Check that a mask is a NumPy array of bool of this shape, or None.

    Raises:
        TypeError: it is something else, or of another dtype.
        ValueError: it has another shape.
    """
    if mask is None:
        return
    if not isinstance(mask, np.ndarray) or isinstance(mask, np.ma.MaskedArray) or mask.dtype != np.bool_:
        got = mask.dtype if type(mask) is np.ndarray else type(mask).__name__
        raise TypeError(f"{name} must be a NumPy array of bool; got {got}")
    if mask.shape != shape:
        raise ValueError(f"{name} must have shape {shape}; got {mask.shape}")


def steps_of(mask: Mask | None, part: slice, backend: Backend) -> list[Valid] | None:
    """Return for each time step whether it is there in all of some samples, in none, or in which: (n, 1, 1, 1)."""
    if mask is None:
        return None
    return [at_step(column, backend) for column in mask[part].T]


def at_step(column: Mask, backend: Backend) -> Valid:
    """Return True where a column (n,) of a mask is True throughout, False where throughout False, else (n, 1, 1, 1)."""
    if column.all():
        return True
    return backend.asarray(np.ascontiguousarray(column))[:, None, None, None] if column.any() else False
