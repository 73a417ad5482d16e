"""Goes through an expression: what it refers to, and what it does to the memory it touches."""

from __future__ import annotations

import ast

from convlstm.determinism.audit import arrays
from convlstm.determinism.audit.machine import BOXES, Machine, boxed
from convlstm.determinism.audit.memory import NONE, OTHER, Reference, References
from convlstm.determinism.audit.scopes import COMPREHENSIONS

READERS = (ast.UnaryOp, ast.Compare, ast.JoinedStr, ast.FormattedValue)


def path(node: ast.expr) -> str:
    """Return "x", "self.x" or "d['a']" for what can be followed like a variable, "" for all else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        base = path(node.value)
        return f"{base}.{node.attr}" if base else ""
    if isinstance(node, ast.Subscript):
        base = path(node.value)
        key = repr(node.slice.value) if isinstance(node.slice, ast.Constant) else path(node.slice)
        return f"{base}[{key}]" if base and key else ""
    return ""


def root(node: ast.expr) -> str:
    """Return the variable at the start of a path."""
    while isinstance(node, (ast.Attribute, ast.Subscript, ast.Call)):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


def evaluate(machine: Machine, node: ast.expr | None) -> References:
    """Go through an expression and return what its value refers to."""
    if node is None or machine.state is None or isinstance(node, ast.Constant):
        return NONE
    if isinstance(node, ast.Name):
        return named(machine, node.id)
    if isinstance(node, ast.Attribute):
        return _attribute(machine, node)
    if isinstance(node, ast.Subscript):
        return _subscript(machine, node)
    if isinstance(node, ast.Call):
        return machine.call(machine, node)
    if isinstance(node, ast.BinOp):
        return _binary(machine, node)
    if isinstance(node, READERS):
        return _reader(machine, node)
    if isinstance(node, (ast.Tuple, ast.List, ast.Set, ast.Dict)):
        parts = [*node.keys, *node.values] if isinstance(node, ast.Dict) else node.elts
        held = [evaluate(machine, part) for part in parts]
        return boxed(frozenset().union(*held), mixed=not all(held))
    if isinstance(node, ast.IfExp):
        evaluate(machine, node.test)
        one, other = evaluate(machine, node.body), evaluate(machine, node.orelse)
        return (one or frozenset({OTHER})) | (other or frozenset({OTHER})) if one or other else NONE
    if isinstance(node, ast.BoolOp):
        return frozenset().union(*[evaluate(machine, v) for v in node.values])
    if isinstance(node, COMPREHENSIONS):
        return _comprehension(machine, node)
    return _rest(machine, node)


def _rest(machine: Machine, node: ast.expr) -> References:
    if isinstance(node, ast.NamedExpr):
        value = evaluate(machine, node.value)
        bind_name(machine, node.target.id, value)
        return value
    if isinstance(node, ast.Starred):
        return evaluate(machine, node.value)
    if isinstance(node, ast.Lambda):
        give_names(machine, node)
        return NONE
    if isinstance(node, (ast.Yield, ast.YieldFrom)):
        value = evaluate(machine, node.value)
        machine.escape(value, node, "yielded")
        machine.give(value, node)
        return NONE
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.expr):
            machine.give(evaluate(machine, child), node)
    return NONE


def named(machine: Machine, name: str) -> References:
    """Return what a variable refers to; one whose parts are followed is a container of them."""
    if machine.state is None:
        return NONE
    inside = [r for key in machine.state.under(name) for r in machine.state.variables[key]]
    return machine.state.variables.get(name, NONE) | boxed(frozenset(inside))


def bind_name(machine: Machine, name: str, value: References) -> None:
    """Let a variable refer to something else."""
    if machine.state is not None:
        machine.state.forget(name)
        if value - {OTHER}:
            machine.state.variables[name] = value


def give_names(machine: Machine, node: ast.AST) -> None:
    """Give away all variables that an inner function uses: when it runs is not seen."""
    if machine.state is None:
        return
    for name in {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}:
        machine.give(named(machine, name), node)


def _attribute(machine: Machine, node: ast.Attribute) -> References:
    key = path(node)
    if machine.state is not None and key in machine.state.variables:
        return named(machine, key)
    base = evaluate(machine, node.value) if not isinstance(node.value, ast.Name) else _own(machine, node.value.id)
    if not base or node.attr in arrays.ABOUT or node.attr in arrays.ABOUT_METHODS:
        return NONE
    if node.attr in arrays.VIEW_ATTRIBUTES:
        return base
    if node.attr in arrays.PART_ATTRIBUTES:
        return frozenset(Reference(r.allocation, "part", None, r.several) for r in base if r.allocation >= 0)
    machine.give(base, node)
    return NONE


def _own(machine: Machine, name: str) -> References:
    """Return what a variable itself refers to: `self.y` does not touch what is kept in `self.x`."""
    return machine.state.variables.get(name, NONE) if machine.state is not None else NONE


def _subscript(machine: Machine, node: ast.Subscript) -> References:
    key = path(node)
    if machine.state is not None and key and key in machine.state.variables:
        return named(machine, key)
    base = evaluate(machine, node.value)
    index(machine, node.slice)
    if isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, str):
        if any(r.kind in BOXES for r in base):
            return NONE  # another entry of a dictionary of which some entries are followed
        return frozenset(Reference(r.allocation, "part", None, r.several) for r in base if r.allocation >= 0)
    if isinstance(node.value, ast.Name) and machine.state is not None and machine.state.under(node.value.id) and base:
        machine.give(base, node)  # which entry is not known
        return NONE
    machine.give(frozenset(r for r in base if r.kind == "bag"), node)
    return frozenset(machine.select(r, node.slice) for r in base if r.kind != "bag")


def index(machine: Machine, node: ast.expr) -> None:
    """Go through an index: an array used as one is read."""
    for part in node.elts if isinstance(node, ast.Tuple) else [node]:
        if isinstance(part, ast.Slice):
            for edge in (part.lower, part.upper, part.step):
                machine.read(evaluate(machine, edge), part)
        else:
            machine.read(evaluate(machine, part), part)


def _binary(machine: Machine, node: ast.BinOp) -> References:
    left, right = evaluate(machine, node.left), evaluate(machine, node.right)
    if any(r.kind in BOXES for r in left | right):
        return left | right  # [array] * n, lists put together
    if isinstance(node.op, ast.Mult) and (_is_nan(node.left) or _is_nan(node.right)):
        return NONE  # NaN times anything is NaN
    machine.read(left | right, node)
    return NONE


def _is_nan(node: ast.expr) -> bool:
    return ast.unparse(node) in (
        "np.nan",
        "numpy.nan",
        "cp.nan",
        "cupy.nan",
        "nan",
        "float('nan')",
        "np.NaN",
        "math.nan",
    )


def _reader(machine: Machine, node: ast.expr) -> References:
    read: References = NONE
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.expr):
            read |= evaluate(machine, child)
    identity = isinstance(node, ast.Compare) and all(
        isinstance(o, (ast.Is, ast.IsNot, ast.In, ast.NotIn)) for o in node.ops
    )
    if not identity:
        machine.read(frozenset(r for r in read if r.kind not in BOXES), node)
    return NONE


def _comprehension(machine: Machine, node: ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp) -> References:
    if machine.state is None:
        return NONE
    outside = dict(machine.state.variables)
    for generator in node.generators:
        iterate(machine, generator.target, generator.iter)
        for test in generator.ifs:
            evaluate(machine, test)
    if isinstance(node, ast.DictComp):
        evaluate(machine, node.key)
        value = evaluate(machine, node.value)
    else:
        value = evaluate(machine, node.elt)
    machine.state.variables = outside
    return frozenset(Reference(r.allocation, "box", None, True) for r in value if r.allocation >= 0)


def iterate(machine: Machine, target: ast.expr, iterable: ast.expr) -> None:
    """Bind a loop's variable to what it runs over."""
    value = evaluate(machine, iterable)
    boxes = frozenset(Reference(r.allocation, "whole", None, True) for r in value if r.kind == "box")
    machine.give(frozenset(r for r in value if r.kind != "box"), iterable)  # rows of an array, to read or to write
    if isinstance(target, ast.Name):
        bind_name(machine, target.id, boxes)
        return
    machine.give(boxes, iterable)
    for inner in ast.walk(target):
        if isinstance(inner, ast.Name):
            bind_name(machine, inner.id, NONE)
