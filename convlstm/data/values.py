"""Values as files hold them, made float32 with NaN where one is missing."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convlstm.data.series import DataError

_KINDS = {
    "c": "complex numbers; save their real part, their modulus, or both as two channels",
    "S": "text", "U": "text", "T": "text",
    "M": "dates", "m": "spans of time",
    "O": "Python objects, which are never unpickled",
    "V": "records; save one of their fields",
}  # fmt: skip


def is_number(dtype: np.dtype[Any]) -> bool:
    """Return whether frames can have this dtype."""
    return dtype.kind in "biuf"


def check_dtype(name: str, dtype: np.dtype[Any]) -> None:
    """Check that frames can have this dtype.

    Raises:
        DataError: they cannot; right are bool, integers and floating-point numbers.
    """
    if not is_number(dtype):
        held = _KINDS.get(dtype.kind, "no numbers")
        shown = f"{dtype}" if dtype.fields is None else "structured"
        raise DataError(f"{name}: has dtype {shown}, {held}; right are bool, integers and floating-point numbers")


def as_frames(name: str, raw: NDArray[Any], first: int, missing: float | None) -> NDArray[np.float32]:
    """Return values as new float32 frames, NaN where they are missing.

    Args:
        name: of the file, for messages.
        raw: (n, C, H, W), bool, integers or floating-point numbers.
        first: the number of the first frame in its file.
        missing: the value that stands for missing, beside NaN.

    Raises:
        DataError: a value is infinite or lies beyond float32.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        frames = np.array(raw, np.float32, order="C")
    if missing is not None:
        frames[equal_to(raw, missing)] = np.nan
    infinite = np.isinf(frames)
    if infinite.any():
        frame = first + int(np.argmax(infinite.any(axis=(1, 2, 3))))
        raise DataError(
            f"{name}: frame {frame} (counted from 0) holds {raw[infinite][0]}; right are finite numbers up to 3.4e38, "
            "and NaN or the value of data.missing where one is missing"
        )
    return frames


def equal_to(raw: NDArray[Any], value: float) -> NDArray[np.bool_]:
    """Return where values are this one, which is first rounded as they are."""
    if raw.dtype.kind == "f":
        with np.errstate(over="ignore"):
            rounded = raw.dtype.type(value)
        if np.isinf(rounded) and not math.isinf(value):
            return np.zeros(raw.shape, bool)
        return np.asarray(raw == rounded)
    return np.asarray(raw == float(value))
