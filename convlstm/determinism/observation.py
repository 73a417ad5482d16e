"""`observe`: a value for `convlstm replay` to compare; outside of a replay it does nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # a replay waits for NumPy's import, and then needs this module whole
    import numpy.typing as npt

Recorder = Callable[[str, "npt.NDArray[Any]"], None]
_recorders: list[Recorder] = []


def observe(name: str, array: Any) -> None:
    """Hand a value to whoever compares runs; cheap when nobody does.

    Args:
        name: what the value is; the same name may be observed many times.
        array: a NumPy or CuPy array, or a number.  It is copied, not kept.
    """
    if _recorders:
        import numpy as np

        host = np.array(array.get() if hasattr(array, "get") else array, order="C")
        if host.dtype.kind in "OV" or host.dtype.char in "gG":  # pointers, gaps: not all of their bytes are the value's
            host = np.array([repr(element) for element in host.flat]).reshape(host.shape)
        for record in _recorders:
            record(name, host)


def observed() -> bool:
    """Return whether anybody compares, so that what only they need can be left out."""
    return bool(_recorders)


@contextmanager
def recorded(record: Recorder) -> Iterator[None]:
    """Call `record(name, array)` for all that is observed inside."""
    _recorders.append(record)
    try:
        yield
    finally:
        _recorders.remove(record)
