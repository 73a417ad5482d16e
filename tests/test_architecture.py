"""What DESIGN promises about the source as a whole.  It is read, never run; each rule is also shown what breaks it."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Each may import those before it, directly or through others, and none after it.
CHAIN = (
    "backends", "arguments", "randomness", "parameters", "normalisation", "dropout", "cell", "recurrence", "masks",
    "stack", "layer", "layer_stack", "stateful", "frame_model", "next_frame", "encoder_forecaster", "not_finite",
    "sources", "from_config", "scoring", "ledger", "run_directory", "run_environment", "run_data", "checkpoint",
    "trainer", "training", "recorded_run", "verify", "diff", "resume", "cli",
)  # fmt: skip
# These stand beside the chain: whoever checks his own gradients or his own script with them needs nothing but NumPy.
BESIDE = ("gradcheck", "determinism")
LENT = "backends.chainer_import"  # but to a script that is replayed, and that imports Chainer
ARRAY_LIBRARIES = {"chainer", "chainerx", "cupy", "cupyx"}
UNINITIALISED = {"empty", "empty_like"}

Modules = dict[
    str, ast.Module
]  # by name within convlstm: "layer", "backends.gates", "data.digits"; "" is convlstm itself


def parse(root: Path) -> Modules:
    """Parse all modules below root/convlstm and root/backends."""
    found = {}
    for package, prefix in (("convlstm", ()), ("backends", ("backends",))):
        for file in sorted((root / package).rglob("*.py")):
            inside = file.relative_to(root / package)
            if package == "convlstm" and inside.parts[0] == "backends":  # the link, where it is followed
                continue
            parts = (*prefix, *inside.with_suffix("").parts)
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = ast.parse(file.read_text(encoding="utf-8"), str(file))
    return found


@pytest.fixture(scope="module")
def modules() -> Modules:
    return parse(ROOT)


def planted(directory: Path, **sources: str) -> Modules:
    """Parse a project of these modules, "backends__gates" for backends.gates."""
    for name, source in {"backends____init__": "", "__init__": "", **sources}.items():
        within = name.split("__", 1) if name.startswith("backends__") else ["convlstm", name]
        file = directory.joinpath(*within).with_suffix(".py")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source)
    return parse(directory)


# Which way imports point ----------------------------------------------------------------------------------------------


def imports(name: str, module: ast.Module, packages: set[str]) -> Iterator[str]:
    """Yield the full name of everything a module imports, at its top or later, also by name through importlib."""
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                here = ["convlstm", *name.split(".")] if name else ["convlstm"]
                up = node.level - (name in packages)
                base = ".".join([*here[: len(here) - up], *filter(None, [node.module])])
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            function = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if function in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                yield node.args[0].value


def graph(modules: Modules) -> dict[str, set[str]]:
    """Return for each module of ours the others it imports directly."""
    packages = {name.rpartition(".")[0] for name in modules if "." in name} | {"", "backends"}
    edges: dict[str, set[str]] = {}
    for name, module in modules.items():
        edges[name] = set()
        for imported in imports(name, module, packages):
            inside = imported.removeprefix("convlstm.")
            if inside == imported and imported != "convlstm":
                continue
            # `from convlstm.data.digits import Split` names data.digits.Split: the longest module in it counts.
            while inside not in modules and "." in inside:
                inside = inside.rpartition(".")[0]
            edges[name].add(inside if inside in modules else "")
        edges[name].discard(name)
    return edges


def reached(edges: dict[str, set[str]], start: str) -> set[str]:
    """Return all modules that importing `start` imports, but for the packages they lie in."""
    seen: set[str] = set()
    waiting = {start}
    while waiting:
        module = waiting.pop()
        seen.add(module)
        waiting |= edges[module] - seen
    return seen - {start}


def top(module: str) -> str:
    return module.partition(".")[0]


def import_faults(modules: Modules) -> list[str]:
    """Return a line for each import that points the wrong way."""
    edges = graph(modules)
    faults = []
    for name in modules:
        others = reached(edges, name)
        if top(name) in CHAIN:
            later = CHAIN[CHAIN.index(top(name)) + 1 :]
            faults += [f"{name} imports {other}" for other in sorted(others) if top(other) in later]
        if top(name) in BESIDE:
            faults += [
                f"{name} imports {other}"
                for other in sorted(others)
                if top(other) not in (top(name), "_version") and other != LENT
            ]
        if any(name in reached(edges, other) for other in others):
            faults.append(f"{name} imports itself through others")
        if "" in others and name != "":
            faults.append(f"{name} imports the package's own __init__")
    return faults


def test_imports_point_one_way(modules: Modules) -> None:
    assert set(CHAIN) <= {top(name) for name in modules}
    assert import_faults(modules) == []


@pytest.mark.parametrize(
    ("sources", "fault"),
    [
        ({"cell": "from convlstm.layer import ConvLSTM", "layer": ""}, "cell imports layer"),
        ({"cell": "from .layer import ConvLSTM", "layer": ""}, "cell imports layer"),
        ({"cell": "def f():\n    import convlstm.layer", "layer": ""}, "cell imports layer"),
        ({"cell": "import importlib\nimportlib.import_module('convlstm.layer')", "layer": ""}, "cell imports layer"),
        ({"cell": "import convlstm.losses", "losses": "import convlstm.stack", "stack": ""}, "cell imports stack"),
        ({"backends__gates": "from convlstm.cell import Cell", "cell": ""}, "backends.gates imports cell"),
        ({"backends__gates": "from ..cell import Cell", "cell": ""}, "backends.gates imports cell"),
        ({"randomness": "from convlstm import parameters", "parameters": ""}, "randomness imports parameters"),
        ({"gradcheck": "from convlstm.losses import LOSSES", "losses": ""}, "gradcheck imports losses"),
        ({"a": "import convlstm.b", "b": "import convlstm.a"}, "a imports itself through others"),
        ({"cell": "from convlstm import ConvLSTM"}, "cell imports the package's own __init__"),
    ],
)
def test_an_import_that_points_the_wrong_way_is_found(sources: dict[str, str], fault: str, tmp_path: Path) -> None:
    assert fault in import_faults(planted(tmp_path, **sources))


def test_imports_that_point_the_right_way_are_none_of_them(tmp_path: Path) -> None:
    sources = {
        "backends__contract": "from .geometry import Geometry",
        "backends__geometry": "",
        "cell": "from convlstm.backends.contract import Array",
        "layer": "from convlstm.backends import Backend\nimport convlstm.cell",
        "__init__": "from convlstm.layer import ConvLSTM",
        "gradcheck": "import numpy",
    }
    assert import_faults(planted(tmp_path, **sources)) == []


# Who knows which array library he holds -------------------------------------------------------------------------------


def foreign(modules: Modules, names: set[str]) -> list[str]:
    """Return "module imports library" for each import of one of these libraries."""
    return [
        f"{name} imports {imported}"
        for name, module in modules.items()
        for imported in imports(name, module, {"", "backends"})
        if top(imported) in names
    ]


def test_only_backends_import_chainer_or_cupy(modules: Modules) -> None:
    faults = foreign(modules, ARRAY_LIBRARIES)
    assert any(fault.startswith("backends.") for fault in faults)  # or the search finds nothing anywhere
    assert [fault for fault in faults if not fault.startswith("backends")] == []


def test_only_one_module_imports_chainer(modules: Modules) -> None:
    assert {fault.split()[0] for fault in foreign(modules, {"chainer"})} == {"backends.chainer_import"}


@pytest.mark.parametrize(
    "source",
    ["import cupy", "import cupy as np", "from chainer.functions import relu", "def f():\n    __import__('cupy')"],
)
def test_an_import_of_an_array_library_is_found(source: str, tmp_path: Path) -> None:
    (fault,) = foreign(planted(tmp_path, layer=source), ARRAY_LIBRARIES)
    assert fault.startswith("layer imports c")


def test_gradcheck_and_determinism_need_only_numpy(modules: Modules) -> None:
    allowed = {*sys.stdlib_module_names, "numpy", "convlstm"}
    beside = {name: module for name, module in modules.items() if top(name) in BESIDE}
    taken = {top(i) for name, module in beside.items() for i in imports(name, module, {"determinism"})}
    assert taken <= allowed


# No memory is read before it is written -------------------------------------------------------------------------------


def uninitialised(modules: Modules) -> list[str]:
    """Return "module:line" for whatever could allocate memory without writing it."""
    faults = []
    for name, module in modules.items():
        for node in ast.walk(module):
            called = node.func if isinstance(node, ast.Call) else None
            constructor = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            # getattr(np, "empty"); what forbids and finds them must name them
            by_text = isinstance(node, ast.Constant) and node.value in UNINITIALISED and top(name) != "determinism"
            mentions = (
                (isinstance(node, ast.Attribute) and node.attr in UNINITIALISED)
                or (isinstance(node, ast.alias) and node.name in UNINITIALISED)
                or by_text
            )
            if mentions or constructor == "ndarray":
                faults.append(f"{name}:{getattr(node, 'lineno', 0)}")
    return faults


def test_nothing_allocates_without_writing(modules: Modules) -> None:
    assert uninitialised(modules) == []


@pytest.mark.parametrize(
    "source",
    [
        "import numpy as np\nx = np.empty(3)",
        "import numpy as np\nmake = np.empty_like",
        "import numpy\nx = numpy.ndarray((2, 2))",
        "from numpy import ndarray\nx = ndarray(3)",
        "import numpy\nfrom numpy import empty as zeros",
        "import numpy\nx = getattr(numpy, 'empty')(3)",
    ],
)
def test_an_allocation_without_writing_is_found(source: str, tmp_path: Path) -> None:
    assert uninitialised(planted(tmp_path, layer=source)) == ["layer:2"]


def test_a_mere_mention_of_an_array_type_is_not_an_allocation(tmp_path: Path) -> None:
    source = (
        "import numpy as np\nok = isinstance(0, np.ndarray)\nclass A(np.ndarray): ...\nx = np.zeros(3)  # not empty"
    )
    assert uninitialised(planted(tmp_path, layer=source)) == []


# What is public -------------------------------------------------------------------------------------------------------


def public_names(module: ast.Module) -> list[str]:
    """Return what a package's __init__ binds by import from us, definition or assignment, underscores apart."""
    names: list[str] = []
    for node in module.body:
        if isinstance(node, ast.ImportFrom) and node.module != "__future__" and _is_ours(node):
            names += [alias.asname or alias.name for alias in node.names]
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.append(node.name)
        elif isinstance(node, ast.Assign):
            names += [target.id for target in node.targets if isinstance(target, ast.Name)]
    return [name for name in names if not name.startswith("_") or name == "__version__"]


def _is_ours(node: ast.ImportFrom) -> bool:
    return node.level > 0 or top(node.module or "") == "convlstm"


def all_of(module: ast.Module) -> list[str]:
    """Return a module's __all__, a list of texts."""
    for node in module.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            names: list[str] = ast.literal_eval(node.value)
            return names
    raise AssertionError("there is no __all__")


@pytest.mark.parametrize("package", ["", "backends"])
def test_all_is_complete_and_sorted(package: str, modules: Modules) -> None:
    names = all_of(modules[package])
    assert names == sorted(names)
    assert names == sorted(set(public_names(modules[package])))


def test_what_is_missing_from_all_is_found() -> None:
    imported = (
        "from __future__ import annotations\nimport os\nfrom convlstm.layer import ConvLSTM\nfrom .a import b as c\n"
    )
    bound = "from .a import _d\ndef f(): ...\nX = 1\n_y = 2"
    assert public_names(ast.parse(imported + bound)) == ["ConvLSTM", "c", "f", "X"]


def undocumented(modules: Modules) -> list[str]:
    """Return every public function, class and method without a docstring.

    A method that a Protocol or a base class documents under the same name needs no second one.
    """
    documented = {
        method.name
        for module in modules.values()
        for node in ast.walk(module)
        if isinstance(node, ast.ClassDef) and any("Protocol" in ast.unparse(base) for base in node.bases)
        for method in node.body
        if isinstance(method, ast.FunctionDef) and ast.get_docstring(method)
    }
    faults = []
    for name, module in modules.items():
        if not ast.get_docstring(module):
            faults.append(name or "convlstm")
        for node in module.body:
            if not isinstance(node, (ast.FunctionDef, ast.ClassDef)) or node.name.startswith("_"):
                continue
            if not ast.get_docstring(node):
                faults.append(f"{name}.{node.name}")
            methods = [method for method in node.body if isinstance(method, ast.FunctionDef)]
            for method in methods if isinstance(node, ast.ClassDef) else []:
                public = not method.name.startswith("_") and method.name not in documented
                if public and not ast.get_docstring(method):
                    faults.append(f"{name}.{node.name}.{method.name}")
    return faults


def test_what_is_public_has_a_docstring(modules: Modules) -> None:
    assert undocumented(modules) == []


def test_what_has_no_docstring_is_found(tmp_path: Path) -> None:
    source = '''"""A module."""
def f(): ...
def _g(): ...
def h():
    """Has one."""
    def inner(): ...
class C:
    def m(self): ...
    def _n(self): ...
    def step(self): ...
class P(Protocol):
    """Has one."""
    def step(self):
        """Has one."""
'''
    found = undocumented(planted(tmp_path, layer=source, __init__='"""A."""', backends____init__='"""B."""'))
    assert found == ["layer.f", "layer.C", "layer.C.m"]
