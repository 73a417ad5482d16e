"""Sets, folders and concurrent results: things that come in no fixed order, where the order shows."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from convlstm.determinism.audit.findings import Raw
from convlstm.determinism.audit.names import Names
from convlstm.determinism.audit.orders import Orders
from convlstm.determinism.audit.scopes import FUNCTIONS, Binding, Module
from convlstm.determinism.audit.words import words

SET_METHODS = words("union intersection difference symmetric_difference copy")
SET_MAKERS = frozenset({"builtins.set", "builtins.frozenset"})
SET_TYPES = words("set frozenset Set FrozenSet AbstractSet MutableSet")
LISTINGS = frozenset({"os.listdir", "os.scandir", "glob.glob", "glob.iglob"})
COMPLETED = frozenset(
    {"concurrent.futures.as_completed", "asyncio.as_completed", "multiprocessing.Pool.imap_unordered"}
)
COMPLAINTS = words("warn warning error exception critical info debug fail skip xfail exit")
DEPTH = 4


def orders(module: Module, names: Names) -> Iterator[Raw]:
    """Yield every place where something without a fixed order lets the order show."""
    follow = Orders(module, names)
    told: set[int] = set()
    for node in list(module.parent_of):
        if not isinstance(node, ast.expr) or isinstance(getattr(node, "ctx", None), (ast.Store, ast.Del)):
            continue
        source, rule = _source(node, module, names)
        if not rule:
            continue
        found = follow.shows(node, sequence=rule != "set-order")
        if found is None or id(found.node) in told or _is_complaint(found.node, module, names):
            continue
        told.add(id(found.node))
        line = getattr(found.node, "lineno", 0)
        place = "here" if line == node.lineno else f"at line {line}"
        yield Raw(node, rule, f"{source}, and {found.how} {place}; {CURE[rule]}")
    yield from _popped(module, names)


def _is_complaint(node: ast.AST, module: Module, names: Names) -> bool:
    """Tell whether this is the text of an error, a warning or a log: no result."""
    inner: ast.AST | None = node
    while inner is not None and not isinstance(inner, (*FUNCTIONS, ast.Module)):
        if isinstance(inner, (ast.Raise, ast.Assert)):
            return True
        if isinstance(inner, ast.Call):
            method = inner.func.attr if isinstance(inner.func, ast.Attribute) else getattr(inner.func, "id", "")
            if method in COMPLAINTS:
                return True
        inner = module.parent_of.get(inner)
    return False


CURE = {
    "set-order": "iterate over sorted(…)",
    "directory-order": "wrap it in sorted(…)",
    "completion-order": "keep results by the task they belong to and combine them in the order of the tasks",
}


def _source(node: ast.expr, module: Module, names: Names) -> tuple[str, str]:
    """Return what has no fixed order here, and the rule it falls under."""
    if isinstance(node, ast.Call):
        for name in sorted(names.resolve(node.func)):
            if name in LISTINGS:
                return f"{name} gives files in the order of the file system", "directory-order"
            if name in COMPLETED:
                return f"{name} gives results in the order they finish", "completion-order"
        method = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        if method == "imap_unordered":
            return "imap_unordered gives results in the order they finish", "completion-order"
        own = names.function(node.func) is not None
        by_path = method in ("iterdir", "rglob") or (method == "glob" and _is_path(node.func, names))
        if by_path and not own and all(n.startswith("pathlib.") for n in names.resolve(node.func)):
            return f"Path.{method} gives files in the order of the file system", "directory-order"
    if is_set(node, module, names) and not _is_of_numbers(node, names):
        return "the order of a set depends on the hash seed", "set-order"
    return "", ""


def _is_path(called: ast.expr, names: Names) -> bool:
    value = called.value if isinstance(called, ast.Attribute) else called
    for inner in ast.walk(value):
        if isinstance(inner, ast.Call) and any(n.startswith("pathlib.") for n in names.resolve(inner.func)):
            return True
        if isinstance(inner, ast.Name):
            for binding in names.bindings(inner):
                said = ast.unparse(binding.annotation) if binding.annotation is not None else ""
                if said.rpartition(".")[2] in ("Path", "PurePath", "PosixPath"):
                    return True
                value_of = binding.node
                if isinstance(value_of, ast.Call) and any(
                    n.startswith("pathlib.") for n in names.resolve(value_of.func)
                ):
                    return True
    return False


def is_set(node: ast.expr | ast.AST | None, module: Module, names: Names, depth: int = DEPTH) -> bool:
    """Tell whether an expression is surely a set."""
    if depth == 0 or node is None:
        return False
    if isinstance(node, (ast.Set, ast.SetComp)):
        return True
    if isinstance(node, ast.Call):
        if names.resolve(node.func) and names.resolve(node.func) <= SET_MAKERS:
            return True
        method = node.func if isinstance(node.func, ast.Attribute) else None
        return method is not None and method.attr in SET_METHODS and is_set(method.value, module, names, depth - 1)
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.BitOr, ast.BitAnd, ast.Sub, ast.BitXor)):
        return is_set(node.left, module, names, depth - 1) or is_set(node.right, module, names, depth - 1)
    if isinstance(node, ast.IfExp):
        return all(is_set(n, module, names, depth - 1) for n in (node.body, node.orelse))
    if isinstance(node, ast.Name):
        bindings = names.bindings(node)
        return bool(bindings) and all(_binds_set(b, module, names, depth) for b in bindings)
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
        owner = module.class_of(node)
        kept = module.attributes.get(owner, {}).get(node.attr, []) if owner is not None else []
        return bool(kept) and all(is_set(value, module, names, depth - 1) for value in kept)
    return False


def _binds_set(binding: Binding, module: Module, names: Names, depth: int) -> bool:
    if binding.annotation is not None:
        said = binding.annotation.value if isinstance(binding.annotation, ast.Subscript) else binding.annotation
        return ast.unparse(said).rpartition(".")[2] in SET_TYPES
    return binding.kind == "value" and binding.unpacked is None and is_set(binding.node, module, names, depth - 1)


def _is_of_numbers(node: ast.expr | ast.AST | None, names: Names, depth: int = DEPTH) -> bool:
    """Tell whether a set surely holds numbers alone: their hashes, and so their order, do not depend on the seed."""
    if depth == 0 or node is None:
        return False
    if isinstance(node, ast.Set):
        return all(isinstance(e, ast.Constant) and isinstance(e.value, (int, float)) for e in node.elts)
    if isinstance(node, ast.SetComp):
        return _is_number(node.elt, names)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub):
        return _is_of_numbers(node.left, names, depth - 1)
    if isinstance(node, ast.BinOp):
        return all(_is_of_numbers(n, names, depth - 1) or _is_range(n, names) for n in (node.left, node.right))
    if isinstance(node, ast.Call):
        if isinstance(node.func, ast.Attribute) and node.func.attr in SET_METHODS:
            return all(
                _is_of_numbers(n, names, depth - 1) or _is_range(n, names) for n in (node.func.value, *node.args)
            )
        if len(node.args) != 1:
            return False
        (given,) = node.args
        listed = isinstance(given, (ast.List, ast.Tuple))
        plain = isinstance(given, (ast.List, ast.Tuple)) and all(_is_number(e, names) for e in given.elts)
        made = isinstance(given, (ast.GeneratorExp, ast.ListComp)) and _is_number(given.elt, names)
        return (listed and plain) or made or _is_range(given, names)
    if isinstance(node, ast.Name):
        only = names.only_value(node)
        return only is not None and _is_of_numbers(only.node, names, depth - 1) and not _is_blank(only.node)
    return False


def _is_blank(node: ast.AST | None) -> bool:
    return isinstance(node, ast.Call) and not node.args


def _is_range(node: ast.expr, names: Names) -> bool:
    return isinstance(node, ast.Call) and names.resolve(node.func) == {"builtins.range"}


def _is_number(node: ast.expr, names: Names) -> bool:
    if isinstance(node, ast.Constant):
        return isinstance(node.value, (int, float))
    if isinstance(node, ast.Call):
        return bool(
            names.resolve(node.func)
            & {"builtins.int", "builtins.len", "builtins.ord", "builtins.round", "builtins.float"}
        )
    if isinstance(node, ast.BinOp):
        return _is_number(node.left, names) and _is_number(node.right, names)
    if isinstance(node, ast.Name):  # `for i in range(n)`
        scope = names.module.scope_of.get(node)
        found = scope.find(node.id) if scope is not None else None
        loops = getattr(found.node, "generators", []) if found is not None else []
        return any(
            isinstance(g.target, ast.Name) and g.target.id == node.id and _is_range(g.iter, names) for g in loops
        )
    return False


def _popped(module: Module, names: Names) -> Iterator[Raw]:
    """Yield `s.pop()` of a set whose value is used: which element comes depends on the hash seed."""
    for call in module.calls:
        if not isinstance(call.func, ast.Attribute) or call.func.attr != "pop" or call.args:
            continue
        around = module.enclosing(call, (ast.While,))
        if around is not None or not is_set(call.func.value, module, names):
            continue  # a work list that is emptied
        if isinstance(module.parent_of.get(call), ast.Expr) or _is_of_numbers(call.func.value, names):
            continue
        if _counted(call, module):
            continue
        yield Raw(call, "set-order", "which element set.pop() gives depends on the hash seed; take it from sorted(…)")


def _counted(call: ast.Call, module: Module) -> bool:
    """Tell whether `len(s) == 1` or unpacking around the call says that there is one element only."""
    assert isinstance(call.func, ast.Attribute)
    around: ast.AST | None = module.parent_of.get(call)
    written = ast.unparse(call.func.value)
    block = module.enclosing(call, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Module)) or around
    return any(
        isinstance(n, ast.Call)
        and isinstance(n.func, ast.Name)
        and n.func.id == "len"
        and ast.unparse(n.args[0]) == written
        for n in (ast.walk(block) if block is not None else ())
        if not isinstance(n, ast.Call) or n.args
    )
