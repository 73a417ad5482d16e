"""The child process of a replay: runs a script, unchanged, under one condition, and records what it does.

    python convlstm/determinism/replay/child.py JOB.json

JOB.json names the script, its arguments, the condition and the folder for the record.  What the condition asks of the
environment stands in the environment already, since NumPy and the C library read it when they start.  A script may set
such variables too before it imports NumPy, so nothing here imports it earlier: all of this project that is needed comes
right behind the script's own import of NumPy.
"""

from __future__ import annotations

import ast
import atexit
import builtins
import contextlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

_OURS = "convlstm"
_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))  # where it lies
Job = dict[str, Any]


def main() -> None:
    """Run the job."""
    job: Job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    folder, script = Path(job["folder"]), job["script"]
    sys.argv = [script, *job["arguments"]]
    sys.path[0] = os.path.dirname(script)
    sys.path.append(_ROOT)  # a script may observe wherever it is run
    outcome: dict[str, Any] = {"error": None, "sites": []}
    observed = (folder / "observed.jsonl").open("w", encoding="utf-8")
    preparing = _Preparing(job, lambda name, array: _write(observed, name, array))
    sys.meta_path.insert(0, preparing)
    try:
        _run(script, get_is_copy=job["cupy_as_numpy"])
        code = 0
    except SystemExit as end:
        code = _exit_code(end)
    except BaseException as error:  # whatever the script lets through; the parent says it
        outcome["error"] = _describe(error, script)
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]  # wait for its threads, run its own endings,
    atexit._run_exitfuncs()
    outcome["code"] = code
    if preparing.memory is not None:
        outcome["sites"] = [[file, line, count] for (file, line), count in preparing.memory.sites.items()]
    observed.close()
    (folder / "outcome.json").write_text(json.dumps(outcome), encoding="utf-8")
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        with contextlib.suppress(Exception):  # the script may have closed or exchanged it
            stream.flush()  # type: ignore[union-attr]
    os._exit(code)  # then leave at once: nothing of this process shall be taken down while arrays live


class _Preparing(importlib.abc.MetaPathFinder):
    """Takes over memory and what is observed once NumPy is imported; then lends Chainer, and NumPy in place of CuPy.

    Attributes:
        memory: the handler of NumPy's memory; None until NumPy is imported.
    """

    def __init__(self, job: Job, record: Callable[[str, Any], None]) -> None:
        self.memory: Any = None
        self._device_memory: Any = None
        self._job = job
        self._sites = None if job["sites"] is None else {(file, line) for file, line in job["sites"]}
        self._record = record
        self._lent: dict[str, Callable[[], ModuleType]] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname == "numpy" and self.memory is None:
            return _and_then("numpy", path, lambda _: self._prepare())
        if fullname == "cupy" and not self._job["cupy_as_numpy"] and self._device_memory is None:
            importlib.import_module("numpy")
            return _and_then("cupy", path, self._prepare_device)
        if fullname == "chainer" or (fullname in ("cupy", "cupyx") and self._job["cupy_as_numpy"]):
            importlib.import_module("numpy")
            make = self._lent.pop(fullname, None)  # once: Chainer is looked for as ever while it is being made
            return make and importlib.util.spec_from_loader(fullname, _Maker(make))
        return None

    def _prepare(self) -> None:
        with _our_package():
            from convlstm.backends.chainer_import import import_chainer
            from convlstm.determinism.memory import ArrayMemory
            from convlstm.determinism.observation import _recorders
            from convlstm.determinism.replay.imports import numpy_as_cupy, numpy_as_cupyx

        self._lent = {"chainer": import_chainer, "cupy": numpy_as_cupy, "cupyx": numpy_as_cupyx}
        _recorders.append(self._record)
        self.memory = ArrayMemory(self._byte, self._job["offset"])
        self.memory.install()

    def _prepare_device(self, cupy: ModuleType) -> None:
        with _our_package():
            from convlstm.determinism.device_memory import DeviceMemory

        self._device_memory = DeviceMemory(cupy, self._byte, self.memory.sites)
        self._device_memory.install()

    def _byte(self, site: tuple[str, int]) -> int:
        """Return what memory that this line asks for shall hold."""
        byte: int = self._job["byte"]
        return byte if self._sites is None or site in self._sites else 0


def _and_then(
    name: str, path: Sequence[str] | None, then: Callable[[ModuleType], None]
) -> importlib.machinery.ModuleSpec | None:
    """Return how a module is found, with something to be done as soon as it is there."""
    spec = importlib.machinery.PathFinder.find_spec(name, path)
    if spec is not None and spec.loader is not None:
        execute = spec.loader.exec_module

        def execute_and_then(module: ModuleType) -> None:
            execute(module)
            then(module)

        spec.loader.exec_module = execute_and_then  # type: ignore[method-assign]
    return spec


@contextlib.contextmanager
def _our_package() -> Iterator[None]:
    """Import this project's package inside; a module of that name that is the script's stays the script's."""
    found = sys.modules.get(_OURS) or importlib.machinery.PathFinder.find_spec(_OURS)
    theirs = {} if found is None or _is_ours(found) else _take_out()
    sys.path.insert(0, _ROOT)
    try:
        yield
    finally:
        sys.path.remove(_ROOT)
        if found is not None and not _is_ours(found):
            _take_out()
            sys.modules.update(theirs)


def _is_ours(found: ModuleType | importlib.machinery.ModuleSpec) -> bool:
    file = found.origin if isinstance(found, importlib.machinery.ModuleSpec) else found.__file__
    return file is not None and os.path.realpath(file) == os.path.realpath(os.path.join(_ROOT, _OURS, "__init__.py"))


def _take_out() -> dict[str, ModuleType]:
    names = [name for name in sys.modules if name.split(".")[0] == _OURS]
    return {name: sys.modules.pop(name) for name in names}


class _Maker(importlib.abc.Loader):
    """Loads a module by calling a function."""

    def __init__(self, make: Callable[[], ModuleType]) -> None:
        self._make = make

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return self._make()

    def exec_module(self, module: ModuleType) -> None:
        """It is made."""


def _run(script: str, *, get_is_copy: bool) -> None:
    """Run a script as `python SCRIPT` does; where NumPy stands in for CuPy, its arrays' `.get()` makes a copy."""
    source = Path(script).read_bytes()
    tree = ast.parse(source, script)
    if get_is_copy:
        tree = ast.fix_missing_locations(_GetIsCopy().visit(tree))
    main = sys.modules["__main__"] = ModuleType("__main__")
    main.__dict__.update(__file__=script, __builtins__=builtins, __cupy_get__=_copy_or_get)
    exec(compile(tree, script, "exec", dont_inherit=True), main.__dict__)


class _GetIsCopy(ast.NodeTransformer):
    """Turns `x.get()` into a call of `_copy_or_get(x)`."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.func, ast.Attribute) and node.func.attr == "get" and not node.args and not node.keywords:
            name = ast.copy_location(ast.Name("__cupy_get__", ast.Load()), node)
            return ast.copy_location(ast.Call(name, [node.func.value], []), node)
        return node


def _copy_or_get(value: Any) -> Any:
    np = sys.modules.get("numpy")
    return value.copy() if np is not None and isinstance(value, (np.ndarray, np.generic)) else value.get()


def _exit_code(end: SystemExit) -> int:
    if end.code is None or isinstance(end.code, int):
        return end.code or 0
    print(end.code, file=sys.stderr)
    return 1


def _describe(error: BaseException, script: str) -> str:
    """Return what was raised and at which of the script's lines."""
    where, frames = "", traceback.extract_tb(error.__traceback__)
    for frame in frames:
        if frame.filename == script:
            where = f", line {frame.lineno}"
    return f"{type(error).__name__}: {error}{where}" if str(error) else f"{type(error).__name__}{where}"


def _write(file: Any, name: str, array: Any) -> None:
    """Append one observed array: dtype, shape and all its bytes, in hexadecimal."""
    frame: FrameType | None = sys._getframe(3)  # whoever called `observe`
    line = {"name": name, "dtype": array.dtype.str, "shape": array.shape, "line": frame.f_lineno if frame else 0}
    file.write(json.dumps(line | {"bytes": array.tobytes().hex()}) + "\n")


if __name__ == "__main__":
    main()
