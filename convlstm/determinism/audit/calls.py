"""Goes through a call: does it write what it is given, read it, look at its shape, or do something that is not seen?"""

from __future__ import annotations

import ast

from convlstm.determinism.audit import arrays, expressions
from convlstm.determinism.audit.allocations import allocation
from convlstm.determinism.audit.machine import BOXES, Machine, boxed
from convlstm.determinism.audit.memory import NONE, Reference, References
from convlstm.determinism.audit.summaries import Summaries

SCATTERS = frozenset({"cupyx.scatter_add", "cupyx.scatter_max", "cupyx.scatter_min"})
WRITE_SOME = frozenset({"put", "place", "putmask", "put_along_axis", "fill_diagonal"})
ALIASES = frozenset({"numpy.frombuffer", "numpy.ndarray", "cupy.ndarray", "numpy.lib.stride_tricks.as_strided"})


def call(machine: Machine, node: ast.Call) -> References:
    """Go through a call and return what its value refers to."""
    names = machine.names.resolve(node.func)
    found = allocation(node, machine.names)
    if found is not None:
        receiver = node.func.value if isinstance(node.func, ast.Attribute) else None
        if receiver is not None and not isinstance(receiver, ast.Name):
            expressions.evaluate(machine, receiver)
        for argument in (*node.args, *(k.value for k in node.keywords)):
            expressions.evaluate(machine, argument)
        return machine.allocate(found)
    base = _receiver(machine, node, names)
    if base:
        return _method(machine, node, base)
    if names and names <= arrays_builtins():
        return _builtin(machine, node, next(iter(names)).rpartition(".")[2])
    outs = [k for k in node.keywords if k.arg == "out"]
    function = arrays.last(names)
    arguments = [expressions.evaluate(machine, a) for a in node.args]
    keywords = [expressions.evaluate(machine, k.value) for k in node.keywords if k.arg not in ("out", "where")]
    for keyword in node.keywords:
        if keyword.arg == "where":
            machine.read(expressions.evaluate(machine, keyword.value), node)
    given: References = frozenset().union(*arguments, *keywords)
    if function or names & ALIASES:
        return _library(machine, node, names, function, arguments, given)
    if outs:
        machine.give(given - _written(machine, outs), node)
        _write_out(machine, node, _written(machine, outs))
        return _written(machine, outs)
    return _unknown(machine, node, arguments, given)


def arrays_builtins() -> frozenset[str]:
    """Return the built-in functions whose treatment of arrays is known."""
    return frozenset(f"builtins.{n}" for n in arrays.READ_BUILTINS | arrays.ABOUT_BUILTINS)


def _receiver(machine: Machine, node: ast.Call, names: frozenset[str]) -> References:
    """Return what a method is called on, if it is memory that is followed."""
    if names or not isinstance(node.func, ast.Attribute) or machine.state is None:
        return NONE
    value = node.func.value
    key = expressions.path(value)
    if key:
        return machine.state.variables.get(key, NONE) or (
            expressions.evaluate(machine, value) if not isinstance(value, ast.Name) else NONE
        )
    return expressions.evaluate(machine, value)


def _written(machine: Machine, outs: list[ast.keyword]) -> References:
    found: References = NONE
    for keyword in outs:
        parts = keyword.value.elts if isinstance(keyword.value, ast.Tuple) else [keyword.value]
        found |= frozenset().union(*[expressions.evaluate(machine, p) for p in parts])
    return found


def _write_out(machine: Machine, node: ast.Call, references: References) -> None:
    where = next((k.value for k in node.keywords if k.arg == "where"), None)
    if where is None or (isinstance(where, ast.Constant) and where.value is True):
        machine.write(references)
        return
    for reference in references:
        if {c[0] for c in machine.conditions(reference)} == {"U"}:
            machine.note(reference, "partly", node, "where= leaves the other elements as they were")


def _method(machine: Machine, node: ast.Call, base: References) -> References:
    name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
    boxes = frozenset(r for r in base if r.kind in BOXES)
    arguments = frozenset().union(
        *[expressions.evaluate(machine, a) for a in (*node.args, *(k.value for k in node.keywords if k.arg != "out"))]
    )
    if boxes:
        if name in ("append", "extend", "insert", "add", "setdefault", "update"):
            _put(machine, expressions.path(node.func.value) if isinstance(node.func, ast.Attribute) else "", arguments)
        elif name in ("items", "values", "pop", "get", "copy"):
            return boxes
        return NONE
    if name in arrays.WRITE_METHODS:
        machine.read(arguments, node)
        machine.write(base)
    elif name in arrays.WRITE_SOME_METHODS:
        machine.write_somewhere(base)
    elif name in arrays.ACCUMULATE_METHODS:
        machine.read(arguments, node)
        machine.read(base, node, "accumulated")
    elif name in arrays.READ_METHODS:
        machine.read(base | arguments, node)
        return _out_of(machine, node)
    elif name not in arrays.VIEW_METHODS | arrays.ABOUT_METHODS:
        machine.give(base | arguments, node)
    return base if name in arrays.VIEW_METHODS or name.endswith("_") else NONE


def _out_of(machine: Machine, node: ast.Call) -> References:
    outs = [k for k in node.keywords if k.arg == "out"]
    written = _written(machine, outs)
    _write_out(machine, node, written)
    return written


def _builtin(machine: Machine, node: ast.Call, name: str) -> References:
    for argument in (*node.args, *(k.value for k in node.keywords)):
        value = expressions.evaluate(machine, argument)
        if name in arrays.READ_BUILTINS:
            machine.read(frozenset(r for r in value if r.kind not in BOXES), node)
    return NONE


def _library(
    machine: Machine,
    node: ast.Call,
    names: frozenset[str],
    function: str,
    arguments: list[References],
    given: References,
) -> References:
    """Go through a call of NumPy, CuPy, SciPy or PyTorch."""
    first = arguments[0] if arguments else NONE
    if names & ALIASES:
        return frozenset(Reference(r.allocation, "whole", None, True) for r in given if r.allocation >= 0)
    if function in ("copyto",):
        machine.read(frozenset().union(*arguments[1:2]), node)
        _write_out(machine, node, first)
        return NONE
    if function == "where" and len(arguments) == 3:  # x = where(…, …, x) fills in parts of x
        machine.read(first, node)
        machine.write_somewhere(frozenset().union(*arguments[1:]))
        return frozenset().union(*arguments[1:])
    if (function == "at" and all(n.count(".") == 2 for n in names)) or names & SCATTERS:
        machine.read(frozenset().union(*arguments[1:]), node)
        machine.read(first, node, "accumulated")
        return NONE
    if function in WRITE_SOME:
        machine.write_somewhere(first)
        return NONE
    if any(n.startswith("numpy.ma.") for n in names):  # what is masked is not read
        machine.give(given, node)
        return NONE
    if function in arrays.VIEW_FUNCTIONS and first:
        return first
    if function in arrays.ABOUT_FUNCTIONS:
        return NONE
    if function not in arrays.READ_FUNCTIONS:
        machine.give(given, node)
        return _out_of(machine, node)
    inputs = 1 if function in arrays.ONE_ARGUMENT else 2
    if function in arrays.REDUCTIONS:  # what further arguments are differs from one to the next
        machine.give(frozenset().union(*arguments[inputs:]), node)
    written = frozenset().union(*arguments[inputs:])
    read = frozenset().union(*arguments[:inputs], *([given - frozenset().union(*arguments)] if given else []))
    outs = [k for k in node.keywords if k.arg == "out"]
    accumulated = {r.allocation for r in written | _written(machine, outs)}
    for reference in read:
        kind = "accumulated" if reference.allocation in accumulated else "read"
        machine.read(
            frozenset({Reference(reference.allocation, "whole") if reference.kind in BOXES else reference}), node, kind
        )
    _write_out(machine, node, written)
    return written | _out_of(machine, node)


def _unknown(machine: Machine, node: ast.Call, arguments: list[References], given: References) -> References:
    """Go through a call of something that is no array library: a helper of this file, a container, anything."""
    function = machine.names.function(node.func)
    summaries = machine.summaries
    if function is not None and summaries is not None:
        found = summaries.passed_on(function, node)
        if found is not None:
            machine.give(given, node)
            return machine.allocate(found)
        if _follow(machine, node, arguments, summaries):
            return NONE
    if isinstance(node.func, ast.Attribute):
        target = expressions.path(node.func.value)
        if target and node.func.attr in ("append", "extend", "insert", "appendleft", "setdefault") and given:
            _put(machine, target, given)
            return NONE
        if target:
            machine.give(expressions.named(machine, target), node)
        else:
            machine.give(expressions.evaluate(machine, node.func.value), node)
    elif not isinstance(node.func, ast.Name):
        expressions.evaluate(machine, node.func)
    machine.give(given, node)
    return NONE


def _follow(machine: Machine, node: ast.Call, arguments: list[References], summaries: Summaries) -> bool:
    """Follow arrays into a function of the same file, one step; tell whether all of them could be."""
    if not any(arguments) or node.keywords or any(isinstance(a, ast.Starred) for a in node.args):
        return False
    function = machine.names.function(node.func)
    if function is None or isinstance(node.func, ast.Attribute):
        return False
    for position, references in enumerate(arguments):
        if not references:
            continue
        verdict = summaries.parameter(function, position)
        if verdict in ("accumulated", "read"):
            machine.read(references, node, verdict, f"by {function.name}")
        elif verdict == "written":
            machine.write(references)
        else:
            machine.give(references, node)
    return True


def _put(machine: Machine, target: str, given: References) -> None:
    """Put arrays into a container that is a variable."""
    if machine.state is not None and target:
        # What else the container holds is not known.
        kept = boxed(given, mixed=True)
        if kept:
            machine.state.variables[target] = machine.state.variables.get(target, NONE) | kept
