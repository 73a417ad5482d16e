"""A CUDA device's memory: what is said when it does not suffice, and how much was held at most."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import cupy


class NotEnoughDeviceMemory(MemoryError):
    """An array does not fit on the device; one line says how much was asked for, what there is, and what would fit."""

    def __init__(self, line: str, asked: int) -> None:
        super().__init__(line)
        self.asked = asked  # bytes


@contextmanager
def clear_memory_errors(samples: int = 0) -> Iterator[None]:
    """Turn CuPy's error about memory into one that says what would fit.

    Args:
        samples: how many are computed at once within; 0 where that is not known.

    Raises:
        NotEnoughDeviceMemory: in its place.
    """
    before = _held() if samples else 0
    try:
        yield
    except cupy.cuda.memory.OutOfMemoryError as error:
        raise NotEnoughDeviceMemory(_line(error._size, samples, before), error._size) from None
    except NotEnoughDeviceMemory as error:  # from within, where the number of samples is not known
        raise NotEnoughDeviceMemory(_line(error.asked, samples, before), error.asked) from None


def _line(asked: int, samples: int, before: int) -> str:
    free, total = cupy.cuda.runtime.memGetInfo()
    held = _held()
    room = free + cupy.get_default_memory_pool().free_bytes()  # what the pool keeps for later counts as free
    line = (
        f"{_GiB(asked)} more were asked for on CUDA device {cupy.cuda.Device().id}, which has {_GiB(total)}, "
        f"{_GiB(held)} of them in arrays and {_GiB(room)} free"
    )
    if not samples:
        return f"{line}; keep fewer arrays there, or take fewer samples at once"
    taken = (
        held - before
    )  # by these samples, which need `asked` too, and perhaps more after that: no more than `most` fit
    most = min(samples - 1, samples * (taken + room) // max(taken + asked, 1))
    fit = f"at most {most} of these {samples} samples fit at once" if most else "not even one sample fits"
    return f"{line}; {fit}, more with recompute= or smaller maps"


def _held() -> int:
    """Return the bytes that arrays of this process hold."""
    return int(cupy.get_default_memory_pool().used_bytes())


def _GiB(size: int) -> str:  # noqa: N802 - the unit's name
    return f"{size / 2**30:.3g} GiB"


class PeakMemory(cupy.cuda.MemoryHook):  # type: ignore[misc]  # CuPy ships no types
    """Within `with PeakMemory() as peak:`, `peak.bytes` is the most that this thread's arrays have held at once.

    Arrays from before count.  The memory of CuPy's default pool is meant; what CUDA and cuBLAS take for themselves is
    not in it.
    """

    name = "convlstm.PeakMemory"

    def __init__(self) -> None:
        self.held = self.bytes = _held()

    def malloc_postprocess(self, **given: int) -> None:
        """Called by CuPy when an array has got `mem_size` bytes; `mem_ptr` is 0 where it has not."""
        if given["mem_ptr"]:
            self.held += given["mem_size"]
            self.bytes = max(self.bytes, self.held)

    def free_postprocess(self, **given: int) -> None:
        """Called by CuPy when an array has given back `mem_size` bytes."""
        self.held -= given["mem_size"]
