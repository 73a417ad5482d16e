"""How much memory a process holds and has held at most.

On Linux the high-water mark is VmHWM of /proc/self/status, which writing 5 to /proc/self/clear_refs lowers to what is
held now; getrusage's ru_maxrss cannot be lowered, and a child inherits its parent's.
"""

from __future__ import annotations

import ctypes
import gc
from pathlib import Path

from benchmarks.measure import Skipped

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def resident() -> int:
    """Return the bytes that the process holds; raises Skipped where the system does not say."""
    return _field("VmRSS")


def most_resident() -> int:
    """Return the most bytes that it has held since `forget_most`; raises Skipped where the system does not say."""
    return _field("VmHWM")


def forget_most() -> None:
    """Let `most_resident` begin with what is held now; raises Skipped where the system does not offer it."""
    try:
        _CLEAR.write_text("5")
    except OSError as error:
        raise Skipped(f"peak memory cannot be told here: {error}") from None


def give_back_free() -> None:
    """Give back what is freed but still held, so that what comes next cannot use it unseen; glibc's allocator can."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _field(name: str) -> int:
    try:
        lines = _STATUS.read_text("utf-8").splitlines()
    except OSError as error:
        raise Skipped(f"peak memory cannot be told here: {error}") from None
    (kilobytes,) = (line.split()[1] for line in lines if line.startswith(name + ":"))
    return int(kilobytes) * 1024
