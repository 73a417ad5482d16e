"""What the variables of a for statement run over."""

from __future__ import annotations

import ast

from convlstm.determinism.audit.expressions import path
from convlstm.determinism.audit.extents import Extent, axis, extent
from convlstm.determinism.audit.machine import Machine
from convlstm.determinism.audit.regions import Span, Spans
from convlstm.determinism.audit.words import words

RANGES = words("range prange trange xrange arange")
TRANSPARENT = words("tqdm reversed list tuple track")


def spans_of(machine: Machine, target: ast.expr, iterable: ast.expr) -> Spans:
    """Return what the variables of a for statement run over, as far as the source tells."""
    names = machine.names
    if isinstance(iterable, ast.Call) and iterable.args:
        resolved = names.resolve(iterable.func)
        function = next(iter(resolved)).rpartition(".")[2] if resolved else path(iterable.func).rpartition(".")[2]
        if function in TRANSPARENT and len(iterable.args) >= 1:
            inner = iterable.args[0]
            return spans_of(machine, target, inner) if isinstance(inner, ast.Call) else {}
        if isinstance(target, ast.Name) and function in RANGES:
            span = _range(machine, iterable.args)
            return {target.id: span} if span is not None else {}
        if isinstance(target, ast.Tuple) and target.elts and function == "enumerate" and len(iterable.args) == 1:
            first = target.elts[0]
            return (
                {first.id: Span(Extent("", 0), _length(machine, iterable.args[0]))}
                if isinstance(first, ast.Name)
                else {}
            )
        if isinstance(target, ast.Tuple) and function == "product" and len(target.elts) == len(iterable.args):
            found: Spans = {}
            for element, part in zip(target.elts, iterable.args, strict=True):
                found |= spans_of(machine, element, part)
            return found
        if isinstance(target, ast.Tuple) and function == "zip" and len(target.elts) == len(iterable.args):
            return {
                k: v
                for e, p in zip(target.elts, iterable.args, strict=True)
                for k, v in spans_of(machine, e, p).items()
            }
        if function == "ndindex":
            return _ndindex(machine, target, iterable.args)
    return {}


def _ndindex(machine: Machine, target: ast.expr, arguments: list[ast.expr]) -> Spans:
    (first, *others) = arguments
    if others and isinstance(target, ast.Tuple) and len(target.elts) == len(arguments):
        given = zip(target.elts, arguments, strict=True)
        return {e.id: Span(Extent("", 0), extent(a, machine.names)) for e, a in given if isinstance(e, ast.Name)}
    shaped = first.value if isinstance(first, ast.Starred) else first
    if isinstance(target, ast.Tuple) and isinstance(shaped, ast.Attribute) and shaped.attr == "shape":
        return {
            e.id: Span(Extent("", 0), axis(shaped.value, position, machine.names))
            for position, e in enumerate(target.elts)
            if isinstance(e, ast.Name)
        }
    return {}


def _length(machine: Machine, node: ast.expr) -> Extent:
    """Return len(node)."""
    if (
        isinstance(node, ast.Call)
        and len(node.args) >= 1
        and path(node.func) in ("zip", "list", "tuple", "range", "tqdm")
    ):
        ranged, first = path(node.func) == "range", node.args[0]
        if ranged:
            return extent(first, machine.names) if len(node.args) == 1 else axis(node, 0, machine.names)
        return _length(machine, first)
    return axis(node, 0, machine.names)


def _range(machine: Machine, arguments: list[ast.expr]) -> Span | None:
    sizes = [extent(a, machine.names) for a in arguments[:3] if not isinstance(a, ast.Starred)]
    if len(sizes) == 1:
        return Span(Extent("", 0), sizes[0])
    if len(sizes) == 2:
        return Span(sizes[0], sizes[1])
    if len(sizes) == 3 and not sizes[2].symbol:
        if sizes[2].number == -1:
            return Span(sizes[1].plus(1), sizes[0].plus(1))
        if sizes[2].number > 0:
            return Span(sizes[0], sizes[1], sizes[2].number)
    return None
