"""Sizes as the source writes them, brought to one form so that `len(x)`, `x.shape[0]` and `n = len(x)` are equal."""

from __future__ import annotations

import ast
from dataclasses import dataclass

from convlstm.determinism.audit.allocations import LIKE, SHAPED, ZEROED, ZEROED_LIKE, elements
from convlstm.determinism.audit.names import Names

DEPTH = 8  # how many names are followed


@dataclass(frozen=True)
class Extent:
    """A symbol plus a number; a number alone has the symbol ""."""

    symbol: str
    number: int

    def plus(self, number: int) -> Extent:
        """Return this much more."""
        return Extent(self.symbol, self.number + number)


def extent(node: ast.expr, names: Names, depth: int = DEPTH) -> Extent:
    """Return the size that an expression stands for."""
    if isinstance(node, ast.Constant) and isinstance(node.value, int) and not isinstance(node.value, bool):
        return Extent("", node.value)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        inner = extent(node.operand, names, depth)
        if not inner.symbol:
            return Extent("", -inner.number)
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Sub)):
        left, right = extent(node.left, names, depth), extent(node.right, names, depth)
        if not right.symbol:
            return left.plus(right.number if isinstance(node.op, ast.Add) else -right.number)
        if not left.symbol and isinstance(node.op, ast.Add):
            return right.plus(left.number)
    found = _measured(node, names, depth) if depth else None
    return found or Extent(_written(node, names, depth), 0)


def _measured(node: ast.expr, names: Names, depth: int) -> Extent | None:
    """Return what len(x), x.shape[0], int(n) or a name stands for."""
    if isinstance(node, ast.Call) and len(node.args) == 1 and not node.keywords:
        called = names.resolve(node.func)
        if called == {"builtins.len"}:
            if isinstance(node.args[0], ast.Attribute) and node.args[0].attr == "shape":
                return None
            return axis(node.args[0], 0, names, depth - 1)
        if called == {"builtins.int"}:
            return extent(node.args[0], names, depth - 1)
    if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Attribute) and node.value.attr == "shape":
        position = extent(node.slice, names, depth - 1)
        if not position.symbol and position.number >= 0:
            return axis(node.value.value, position.number, names, depth - 1)
    only = names.only_value(node)
    if only is None or not isinstance(only.node, ast.expr):
        return None
    if only.unpacked is None:
        return extent(only.node, names, depth - 1)
    if isinstance(only.node, ast.Attribute) and only.node.attr == "shape":
        return axis(only.node.value, only.unpacked, names, depth - 1)
    return None


def axis(node: ast.expr, position: int, names: Names, depth: int = DEPTH) -> Extent:
    """Return the extent of an array along one axis."""
    only = names.only_value(node) if depth > 0 else None
    if only is not None and only.unpacked is None and isinstance(only.node, ast.expr):
        value = only.node
        if isinstance(value, ast.Call):
            known = shape(value, names, depth - 1)
            if position < len(known):
                return known[position]
        elif isinstance(value, ast.Name):
            return axis(value, position, names, depth - 1)
    return Extent(f"shape({ast.unparse(node)}, {position})", 0)


def shape(call: ast.Call, names: Names, depth: int = DEPTH) -> list[Extent]:
    """Return the leading extents of the array that a call makes, as many as are known."""
    called = names.resolve(call.func)
    if called & ZEROED_LIKE and call.args and not any(k.arg == "shape" for k in call.keywords):
        return [axis(call.args[0], position, names, depth - 1) for position in range(4)]
    if not called & (ZEROED | LIKE | set(SHAPED)):
        return []
    given = next((k.value for k in call.keywords if k.arg in ("shape", "size")), call.args[0] if call.args else None)
    if given is None:
        return []
    if any(name.startswith("torch.") for name in called) and len(call.args) > 1:
        return [extent(a, names, depth - 1) for a in call.args]
    if isinstance(given, ast.Attribute) and given.attr == "shape":
        return [axis(given.value, position, names, depth - 1) for position in range(4)]
    parts = elements(given, names)
    if parts or (isinstance(given, (ast.Tuple, ast.List, ast.BinOp)) and not _is_number(given)):
        return [extent(part, names, depth - 1) for part in parts]
    return [extent(given, names, depth - 1)]


def has_all_axes(call: ast.Call, names: Names) -> bool:
    """Tell whether a shape is written out as a tuple, so that the number of axes is known."""
    given = next((k.value for k in call.keywords if k.arg == "shape"), call.args[0] if call.args else None)
    only = names.only_value(given) if given is not None else None
    if only is not None and only.unpacked is None and isinstance(only.node, ast.expr):
        given = only.node
    return isinstance(given, (ast.Tuple, ast.List)) and not any(isinstance(e, ast.Starred) for e in given.elts)


def _is_number(node: ast.expr) -> bool:
    """Tell `n + 1` from `(n,) + rest`."""
    return isinstance(node, ast.BinOp) and not isinstance(node.left, (ast.Tuple, ast.List))


def _written(node: ast.expr, names: Names, depth: int) -> str:
    if isinstance(node, ast.BinOp) and depth:
        left, right = extent(node.left, names, depth - 1), extent(node.right, names, depth - 1)
        return f"({left.symbol}{left.number:+d}) {type(node.op).__name__} ({right.symbol}{right.number:+d})"
    return ast.unparse(node)
