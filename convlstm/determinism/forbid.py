"""`forbid_uninitialised`: inside it, memory that nobody has written cannot be asked for.

A module such as `numpy` then asks, whenever one of the names `empty`, `empty_like`, `ndarray`, … is looked up in it,
who looks.  The user's code and this project's, where an instruction of theirs names it, get a guard that raises with
their line when it is called; everybody else gets what was always there: libraries, and functions written in C that a
user's line has called, as `Generator.normal` and `pickle.dumps`.  The class `ndarray` is guarded where it is called by
its name or kept under another one, and stays the class everywhere else: as a base, an argument, a type, a pattern.

It holds for the whole process, all threads, while anybody is inside; when the last one leaves, everything is as it was.
"""

from __future__ import annotations

import ast
import dis
import functools
import importlib.abc
import importlib.machinery
import itertools
import linecache
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import CodeType, FrameType, ModuleType
from typing import Any

from convlstm.determinism.whose import is_third_party, runs_third_party

# In each module what must not be called, and what to write instead.
FORBIDDEN: dict[str, dict[str, str]] = {
    "numpy": {"empty": "numpy.zeros", "empty_like": "numpy.zeros_like", "ndarray": "numpy.zeros"},
    "cupy": {"empty": "cupy.zeros", "empty_like": "cupy.zeros_like", "ndarray": "cupy.zeros"},
    "cupy.cuda": {
        "alloc": "cupy.zeros(…).data", "alloc_pinned_memory": "cupyx.zeros_pinned",
        "malloc_managed": "cupy.zeros(…).data", "malloc_async": "cupy.zeros(…).data",
    },
    "cupyx": {"empty_pinned": "cupyx.zeros_pinned", "empty_like_pinned": "cupyx.zeros_like_pinned"},
}  # fmt: skip

_HAS_COLUMNS = hasattr(CodeType, "co_positions")  # since Python 3.11
_lock = threading.RLock()
_inside = 0
_undo: list[Callable[[], None]] = []


class UninitialisedAllocation(RuntimeError):
    """Memory was asked for that nobody has written; the message names the line and what to write instead."""


@contextmanager
def forbid_uninitialised() -> Iterator[None]:
    """Make `empty`, `empty_like` and `ndarray(shape)` raise in the user's code and in this project's.

    Of NumPy and CuPy, CuPy's raw and pinned allocators included, also if CuPy is imported later.  Calls within
    libraries pass.  It may be entered again inside itself and by several threads.

    Raises:
        UninitialisedAllocation: inside it, at such a call.
    """
    _enter()
    try:
        yield
    finally:
        _leave()


def _enter() -> None:
    global _inside
    with _lock:
        _inside += 1
        if _inside > 1:
            return
        for name in FORBIDDEN:
            if isinstance(sys.modules.get(name), ModuleType):  # None there forbids an import
                _guard_module(name)
        finder = _GuardOnImport()
        sys.meta_path.insert(0, finder)
        _undo.append(lambda: sys.meta_path.remove(finder))


def _leave() -> None:
    global _inside
    with _lock:
        _inside -= 1
        while _inside == 0 and _undo:
            _undo.pop()()


def _guard_module(name: str) -> None:
    """Exchange the module's class for one that looks who asks for a forbidden name."""
    module = sys.modules[name]
    guards: dict[str, Any] = {}
    for attribute, instead in FORBIDDEN[name].items():
        original = getattr(module, attribute, None)
        if original is not None:
            guards[attribute] = _guarded(original, f"{name}.{attribute}", instead)
            if attribute != "ndarray":  # a class is more than its call
                _replace_taken_out(original, guards[attribute])
    properties = {name: _asking_property(name, vars(module)[name], guard) for name, guard in guards.items()}
    original_class = module.__class__
    module.__class__ = type("GuardedModule", (original_class,), properties)
    _undo.append(lambda: setattr(module, "__class__", original_class))


def _asking_property(attribute: str, original: object, guard: object) -> property:
    """Return a property of a module: the guard where an instruction of the user's code names the attribute."""

    def get(module: ModuleType) -> Any:
        frame = sys._getframe(1)
        asked = not runs_third_party(frame) and _names(frame.f_code, frame.f_lasti, attribute)
        held = vars(module)[attribute]
        return guard if asked and held is original else held  # somebody's own patch of it is his

    def set_(module: ModuleType, value: object) -> None:
        vars(module)[attribute] = value

    def delete(module: ModuleType) -> None:
        del vars(module)[attribute]

    return property(get, set_, delete)


@functools.lru_cache(maxsize=4096)
def _names(code: CodeType, at: int, attribute: str) -> bool:
    """Return whether the instruction at this place takes an attribute by its name; `ndarray`, to call it at once.

    It does not where a function written in C asks; what that is called with, `getattr` too, is not looked at.
    """
    instructions = iter(dis.get_instructions(code))
    taking = next(instruction for instruction in instructions if instruction.offset == at)
    if taking.opname not in ("LOAD_ATTR", "LOAD_METHOD", "IMPORT_FROM") or taking.argval != attribute:
        return False
    following = next(i.opname for i in instructions if i.opname not in ("CACHE", "EXTENDED_ARG"))
    if attribute != "ndarray":
        return following != "IS_OP"
    method = taking.opname == "LOAD_METHOD" or (sys.version_info >= (3, 12) and "NULL" in taking.argrepr)
    return method or _place(code, at, taking) in _calls_of_ndarray(code.co_filename)


def _place(code: CodeType, at: int, taking: dis.Instruction) -> tuple[int | None, int | None]:
    """Return line and column, in bytes, where an instruction's expression ends; before Python 3.11 the line alone."""
    if _HAS_COLUMNS:
        _, line, _, column = next(itertools.islice(code.co_positions(), at // 2, None))
        return line, column
    return max(line for start, line in dis.findlinestarts(code) if start <= taking.offset), None


@functools.lru_cache(maxsize=256)
def _calls_of_ndarray(filename: str) -> frozenset[tuple[int | None, int | None]]:
    """Return where in a file `….ndarray` ends that is called, as `_place` says it."""
    try:
        tree = ast.parse("".join(linecache.getlines(filename)))
    except (SyntaxError, ValueError):
        return frozenset()
    called = {node.func for node in ast.walk(tree) if isinstance(node, ast.Call)}
    named = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr == "ndarray"]
    if _HAS_COLUMNS:
        return frozenset((node.end_lineno, node.end_col_offset) for node in named if node in called)
    other = {node.lineno for node in named if node not in called}  # a line that has both is let pass
    return frozenset((node.lineno, None) for node in named if node in called and node.lineno not in other)


def _guarded(original: Callable[..., Any], called: str, instead: str) -> Callable[..., Any]:
    def guarded(*arguments: Any, **named: Any) -> Any:
        memory = arguments[2] if len(arguments) > 2 else named.get("buffer", named.get("memptr"))
        if not isinstance(original, type) or memory is None:  # a class with a buffer is a view of memory that is there
            _refuse(sys._getframe(1), called, instead)
        return original(*arguments, **named)

    for attribute in ("__name__", "__qualname__", "__doc__", "__module__"):
        setattr(guarded, attribute, getattr(original, attribute, None))
    return guarded


def _refuse(frame: FrameType, called: str, instead: str) -> None:
    """Raise if the caller is the user's code or ours, and anybody is inside."""
    if _inside and not runs_third_party(frame):
        line = f"{frame.f_code.co_filename}:{frame.f_lineno}"
        raise UninitialisedAllocation(f"{line}: {called} returns memory that nobody has written; use {instead}")


def _replace_taken_out(original: object, guarded: object) -> None:
    """Replace a function where the user's modules hold it under a name of their own, as `from numpy import …` does."""
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        users = isinstance(module, ModuleType) and (
            module.__name__ == "__main__" or (file is not None and not is_third_party(file))
        )
        for name, value in list(vars(module).items()) if users else ():
            if value is original and module.__name__ not in FORBIDDEN:
                _replace(vars(module), name, guarded)


def _replace(names: dict[str, Any], name: str, value: object) -> None:
    original = names[name]
    names[name] = value

    def put_back() -> None:
        if names.get(name) is value:  # else the user has given the name to something else meanwhile
            names[name] = original

    _undo.append(put_back)


# CuPy imported after entry --------------------------------------------------------------------------------------------


class _GuardOnImport(importlib.abc.MetaPathFinder):
    """Guards the modules of `FORBIDDEN` that are imported while somebody is inside, right after their import."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in FORBIDDEN:
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(fullname, path, target)
            if spec is not None and spec.loader is not None:
                spec.loader = _GuardingLoader(spec.loader)  # type: ignore[assignment]
                return spec
        return None


class _GuardingLoader:
    """Loads as another loader does, then guards what was loaded."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        made: ModuleType | None = self._loader.create_module(spec)
        return made

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        with _lock:
            if _inside:
                _guard_module(module.__name__)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)
