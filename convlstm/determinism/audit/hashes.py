"""`hash()` and `id()` where their value reaches a result."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from convlstm.determinism.audit.findings import Raw
from convlstm.determinism.audit.names import Names
from convlstm.determinism.audit.scopes import FUNCTIONS, Module


def hashes(module: Module, names: Names) -> Iterator[Raw]:
    """Yield hashes used as values, and addresses used as an order."""
    compared: set[ast.AST | None] = set()
    for call in module.calls:
        called = names.resolve(call.func)
        if called == {"builtins.hash"} and len(call.args) == 1 and not _is_innocent_hash(call, module):
            yield Raw(
                call,
                "hash-value",
                "hash() of text or bytes differs from run to run, and of plain objects is their address; "
                "use hashlib or zlib.crc32",
            )
        elif called == {"builtins.id"} and _is_order(call, module) and module.parent_of.get(call) not in compared:
            compared.add(module.parent_of.get(call))
            yield Raw(call, "id-as-order", "id() is an address: its order and digits differ from run to run")
        for keyword in call.keywords:
            if (
                keyword.arg == "key"
                and _is_sort(call, called)
                and names.resolve(keyword.value) & {"builtins.id", "builtins.hash"}
            ):
                yield Raw(call, "id-as-order", f"{ast.unparse(keyword.value)} as sort key differs from run to run")


def _is_innocent_hash(call: ast.Call, module: Module) -> bool:
    """Tell uses that stay within one process and whose value does not show."""
    (given,) = call.args
    if isinstance(given, ast.Constant) and isinstance(given.value, (int, float)):
        return True
    around = module.enclosing(call, FUNCTIONS)
    name = around.name if isinstance(around, FUNCTIONS) else ""
    if "hash" in name.lower() or name.startswith("test"):
        return True
    node: ast.AST = call
    parent = module.parent_of.get(node)
    while isinstance(parent, (ast.Tuple, ast.BoolOp, ast.IfExp)):
        node, parent = parent, module.parent_of.get(parent)
    if isinstance(parent, (ast.Expr, ast.Compare)):
        return True
    if isinstance(parent, ast.Call) and re.search("assert|equal", ast.unparse(parent.func), re.IGNORECASE):
        return True
    if isinstance(parent, ast.Assign):
        named = all("hash" in ast.unparse(t).lower() for t in parent.targets)
        return named or all(_is_looked_up_by(t, module) for t in parent.targets)
    return _is_lookup(node, module)


def _is_looked_up_by(target: ast.expr, module: Module) -> bool:
    """Tell whether a variable serves as a key only."""
    around = module.enclosing(target, (*FUNCTIONS, ast.Module))
    if not isinstance(target, ast.Name) or around is None:
        return False
    named = [n for n in ast.walk(around) if isinstance(n, ast.Name) and n.id == target.id]
    uses = [n for n in named if isinstance(n.ctx, ast.Load)]
    return bool(uses) and all(_is_lookup(n, module) for n in uses)


def _is_lookup(node: ast.AST, module: Module) -> bool:
    """Tell whether something is the key in `d[key]`, `d.get(key)` or `key in d`."""
    parent = module.parent_of.get(node)
    if isinstance(parent, ast.Call) and isinstance(parent.func, ast.Attribute):
        return parent.func.attr in ("get", "setdefault", "pop") and parent.args[:1] == [node]
    return (isinstance(parent, ast.Subscript) and parent.slice is node) or isinstance(parent, ast.Compare)


def _is_sort(call: ast.Call, called: frozenset[str]) -> bool:
    """Tell whether the call's `key` puts things in an order."""
    method = call.func.attr if isinstance(call.func, ast.Attribute) else ""
    return method == "sort" or bool(called & {"builtins.sorted", "builtins.min", "builtins.max"})


def _is_order(call: ast.Call, module: Module) -> bool:
    """Tell whether an address is put in an order or calculated with; as a mere key it is innocent."""
    parent = module.parent_of.get(call)
    if isinstance(parent, ast.Compare):
        return any(isinstance(op, (ast.Lt, ast.LtE, ast.Gt, ast.GtE)) for op in parent.ops)
    if isinstance(parent, ast.BinOp):
        return not isinstance(parent.op, ast.Mod) or parent.left is call
    return isinstance(parent, ast.Lambda) and isinstance(module.parent_of.get(parent), ast.keyword)
