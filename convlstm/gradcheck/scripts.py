"""Takes a function out of somebody's script, for `convlstm gradcheck --script FILE.py:function`."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

NAME = "script_under_check"  # of the module; not "__main__", so that a script's own main part does not run


class ScriptError(ValueError):
    """A script that cannot be used; the message names it and says why."""


def load_function(reference: str) -> Callable[..., Any]:
    """Run a script and return one of its functions.

    Args:
        reference: "FILE.py:function".

    Raises:
        ScriptError: it is not of that form; there is no such file or function; running the file fails.
    """
    file, colon, name = reference.rpartition(":")
    if not colon or not file or not name:
        raise ScriptError(f"--script must be FILE.py:function; got {reference!r}")
    path = Path(file)
    if not path.is_file():
        raise ScriptError(f"--script: {file} is {'a directory' if path.is_dir() else 'not there'}")
    spec = importlib.util.spec_from_file_location(NAME, path)
    if spec is None or spec.loader is None:
        raise ScriptError(f"--script: {file} is no Python file; its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = module  # dataclasses and pickles look their module up
    sys.path.insert(0, str(path.resolve().parent))  # as for a script that is run
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise ScriptError(f"--script: running {file} failed: {describe(error)}") from error
    found: Callable[..., Any] | None = getattr(module, name, None)
    if not callable(found):
        functions = [n for n, value in vars(module).items() if inspect.isfunction(value) and value.__module__ == NAME]
        raise ScriptError(f"--script: {file} has no function {name!r}; it has {', '.join(functions) or 'none'}")
    return found


def takes_length(function: Callable[..., Any]) -> bool:
    """Return whether a function wants the length T, its one argument without a default.

    Raises:
        ScriptError: it wants more.
    """
    signature = inspect.signature(function)
    for arguments in ((), (1,)):
        try:
            signature.bind(*arguments)
        except TypeError:
            continue
        return bool(arguments)
    raise ScriptError(f"--script: the function must take nothing, or the length T; it takes {signature}")


def describe(error: BaseException) -> str:
    """Return what was raised and where, in one line."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = "" if trace is None else f" ({Path(trace.tb_frame.f_code.co_filename).name}, line {trace.tb_lineno})"
    try:
        said = " ".join(str(error).split())
    except Exception:  # an exception of theirs that cannot say what it is
        said = "(no message)"
    return f"{type(error).__name__}: {said}{where}"
