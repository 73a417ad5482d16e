"""Whose code a file is: the user's or this project's, or a third party's (libraries, Python itself)."""

from __future__ import annotations

import functools
import os
import site
import sysconfig
from types import FrameType

_OURS = os.path.realpath(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_LIBRARY_FOLDERS = ("site-packages", "dist-packages")


def runs_third_party(frame: FrameType) -> bool:
    """Return whether a library's or Python's own code runs here.

    What was made from a text, as "<string>" says, is of the module in whose names it runs.
    """
    filename = frame.f_code.co_filename
    if filename.startswith("<") and not filename.startswith("<frozen"):
        filename = str(frame.f_globals.get("__file__") or filename)
    return is_third_party(filename)


@functools.cache
def is_third_party(filename: str) -> bool:
    """Return whether the code in this file is a library's or Python's own.

    What is typed at a prompt or made from a text, as "<stdin>" and "<string>" say, is the user's.
    """
    if filename.startswith("<"):
        return filename.startswith("<frozen")
    path = os.path.realpath(filename)
    if path.startswith(_OURS + os.sep):
        return False
    parts = path.split(os.sep)
    return any(folder in parts for folder in _LIBRARY_FOLDERS) or any(
        path.startswith(prefix) for prefix in _library_prefixes()
    )


@functools.cache
def _library_prefixes() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    folders = [paths[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")]
    folders += [*site.getsitepackages(), site.getusersitepackages()]
    return tuple(os.path.realpath(folder) + os.sep for folder in folders)
