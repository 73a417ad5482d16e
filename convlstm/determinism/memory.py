"""NumPy's memory in our own hands: what new memory holds, where it lies, and which line asked for it.

NumPy takes the memory of arrays from a handler that can be exchanged (NEP 49, "Data allocation strategies in NumPy").
This one takes it from the C library, writes a chosen byte into all of it, and notes the line of the user's code that
was running.  So it sees every array that is made without being written: by `empty`, by `ndarray(shape)`, under whatever
name, by a library on behalf of a line, and the small blocks too that NumPy otherwise keeps and hands out again as they
were.  `zeros` stays zero.

It is for child processes that examine a program: an allocation takes microseconds, and the handler cannot be taken out
while an array lives.  Entry 304 of NumPy's table of functions is part of its binary interface (since 1.22).
"""

from __future__ import annotations

import ctypes
import importlib
import mmap
import os
import platform
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import numpy as np

from convlstm.determinism.whose import runs_third_party

Site = tuple[str, int]  # file, line
Fill = Callable[[Site], int]

GRAIN = 16  # bytes; what NumPy and its vector loops may rely on
LINE = 64  # bytes; a cache line, and the longest vector
_ANYWHERE: Site = ("", 0)  # no line of the user's code was running
_MACHINERY = os.path.dirname(os.path.abspath(__file__)) + os.sep  # observes, replays; is nobody's program

_P, _SIZE = ctypes.c_void_p, ctypes.c_size_t
_WORD = ctypes.c_uint64
_MALLOC, _CALLOC = ctypes.CFUNCTYPE(_P, _P, _SIZE), ctypes.CFUNCTYPE(_P, _P, _SIZE, _SIZE)
_REALLOC, _FREE = ctypes.CFUNCTYPE(_P, _P, _P, _SIZE), ctypes.CFUNCTYPE(None, _P, _P, _SIZE)


class _Allocator(ctypes.Structure):
    _fields_ = (("ctx", _P), ("malloc", _MALLOC), ("calloc", _CALLOC), ("realloc", _REALLOC), ("free", _FREE))


class _Handler(ctypes.Structure):
    _fields_ = (("name", ctypes.c_char * 127), ("version", ctypes.c_uint8), ("allocator", _Allocator))


# `free(context, place, size)` in x86-64: unless place is NULL, jump to the address that follows with the 8 bytes before
# the place as the argument.  No Python may run when an array dies: it would lose an error that is on its way.
_FREE_CODE = bytes.fromhex("4885f6 740a 488b7ef8 ff2501000000 c3")


class ArrayMemory:
    """A handler of NumPy's array memory.

    Attributes:
        sites: for each line that asked for memory without having it zeroed, how often.
    """

    def __init__(self, fill: Fill, offset: int = 0) -> None:
        """Fill new memory with the byte that `fill` gives for its site; let it begin `offset` bytes into a cache line.

        Raises:
            ValueError: `offset` is no multiple of 16 below 64.
        """
        if offset % GRAIN or not 0 <= offset < LINE:
            raise ValueError(f"offset must be 0, 16, 32 or 48; got {offset}")
        self.sites: dict[Site, int] = {}
        self._fill = fill
        self._offset = offset
        self._libc = ctypes.PyDLL(None)
        self._libc.malloc.restype, self._libc.malloc.argtypes = _P, [_SIZE]
        self._libc.calloc.restype, self._libc.calloc.argtypes = _P, [_SIZE, _SIZE]
        self._libc.free.restype, self._libc.free.argtypes = None, [_P]
        free = _free_in_c(self._libc) or _FREE(self._free)
        self._callbacks = _MALLOC(self._malloc), _CALLOC(self._calloc), _REALLOC(self._realloc), free
        self._handler = _Handler(b"convlstm", 1, _Allocator(None, *self._callbacks))
        new = ctypes.pythonapi.PyCapsule_New
        new.restype, new.argtypes = ctypes.py_object, [_P, ctypes.c_char_p, _P]
        self._capsule = new(ctypes.addressof(self._handler), b"mem_handler", None)

    def install(self) -> None:
        """Take over, in this thread and all of `threading` that start from now on; for the rest of the process."""
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self))  # arrays may outlive everything, and are freed through this
        _set_handler(self._capsule)
        begin = threading.Thread._bootstrap_inner  # type: ignore[attr-defined]  # `run` is for subclasses to replace

        def begin_with_handler(thread: threading.Thread) -> None:
            _set_handler(self._capsule)  # a new thread begins without
            begin(thread)

        threading.Thread._bootstrap_inner = begin_with_handler  # type: ignore[attr-defined]

    def _malloc(self, _: Any, size: int) -> int | None:
        site = users_line(sys._getframe(1))
        self.sites[site] = self.sites.get(site, 0) + 1
        byte = self._fill(site)
        place = self._place(size, zeroed=byte == 0)
        if place is not None and byte:
            ctypes.memset(place, byte, size)
        return place

    def _calloc(self, _: Any, count: int, size: int) -> int | None:
        return self._place(count * size, zeroed=True)

    def _realloc(self, _: Any, old: int | None, size: int) -> int | None:
        place = self._malloc(None, size)
        if place is not None and old:
            ctypes.memmove(place, old, min(size, _WORD.from_address(old - GRAIN).value))
            self._free(None, old, 0)
        return place

    def _free(self, _: Any, place: int | None, size: int) -> None:
        if place:
            self._libc.free(_WORD.from_address(place - 8).value)

    def _place(self, size: int, *, zeroed: bool) -> int | None:
        """Return where an array's memory shall lie; the 16 bytes before hold its size and the C library's block."""
        room = GRAIN + LINE + self._offset + size
        # What is zeroed costs no memory before it is written.
        block = self._libc.calloc(1, room) if zeroed else self._libc.malloc(room)
        if not block:
            return None  # NumPy makes a MemoryError of it
        place: int = -(-(block + GRAIN) // LINE) * LINE + self._offset
        _WORD.from_address(place - 16).value, _WORD.from_address(place - 8).value = size, block
        return place


def _free_in_c(libc: ctypes.PyDLL) -> Any:
    """Return `_FREE_CODE` as a function; None on another machine, or where making code is not allowed."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return None
    try:
        page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    except OSError:
        return None
    page.write(_FREE_CODE + ctypes.cast(libc.free, _P).value.to_bytes(8, "little"))  # type: ignore[union-attr]
    free = _FREE(ctypes.addressof(ctypes.c_char.from_buffer(page)))
    free.page = page  # type: ignore[attr-defined]  # which must live as long
    return free


def users_line(frame: FrameType | None) -> Site:
    """Return the innermost line of the user's code that is running."""
    while frame is not None:
        filename = frame.f_code.co_filename
        if not runs_third_party(frame) and not filename.startswith(_MACHINERY):
            return filename, frame.f_lineno
        frame = frame.f_back
    return _ANYWHERE


def numpys_core() -> Any:
    """Return the extension module that NumPy's arrays live in."""
    return importlib.import_module(f"numpy.{'_core' if hasattr(np, '_core') else 'core'}._multiarray_umath")


def _set_handler(capsule: Any) -> None:
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = _P, [ctypes.py_object, ctypes.c_char_p]
    table = ctypes.cast(pointer(numpys_core()._ARRAY_API, None), ctypes.POINTER(_P))
    ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object)(table[304])(capsule)
