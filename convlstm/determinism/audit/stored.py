"""Memory that a method keeps in an attribute unwritten, and what the other methods of its class do with it."""

from __future__ import annotations

import ast

from convlstm.determinism.audit.allocations import allocation
from convlstm.determinism.audit.machine import BOXES, Event, Machine
from convlstm.determinism.audit.names import Names
from convlstm.determinism.audit.scopes import FUNCTIONS, Function, Module


def stored_events(block: ast.AST, machine: Machine, module: Module, names: Names) -> dict[int, list[Event]]:
    """Return what is to be said of attributes and containers that are unwritten when a function ends."""
    found: dict[int, list[Event]] = {}
    if machine.state is None or not isinstance(block, FUNCTIONS):
        return found
    for key, references in machine.state.variables.items():
        base, _, attribute = key.partition(".")
        for reference in references:
            kinds = {c[0] for c in machine.conditions(reference)}
            if reference.allocation < 0 or kinds != {"U"} or reference.kind in BOXES:
                continue
            line = machine.allocations[reference.allocation].line
            if "[" in key and _is_outside(key.partition("[")[0], block, module):
                found.setdefault(reference.allocation, []).append(Event("escapes", line, f"kept in {key}"))
            if not attribute.isidentifier():
                continue
            owner = module.class_of(block) if base in ("self", "cls") else None
            if owner is None:
                event: Event | None = Event("escapes", line, f"kept in {key}")
            else:
                event = _elsewhere(owner, block, attribute, line, names)
            if event is not None:
                found.setdefault(reference.allocation, []).append(event)
    for number, events in found.items():  # what one of its names cannot decide is not decided
        if any(e.kind == "undecided" for e in events):
            found[number] = [e for e in events if e.kind != "escapes"]
    return found


def _is_outside(name: str, block: Function, module: Module) -> bool:
    """Tell whether a container is not the function's own: a global, or something it was given."""
    first = name.partition(".")[0]
    bindings = next((s for n, s in module.scope_of.items() if s.node is block), None)
    own = bindings.bindings.get(first, []) if bindings is not None else []
    return "." in name or all(b.kind == "parameter" for b in own)


def _elsewhere(owner: ast.ClassDef, block: Function, attribute: str, line: int, names: Names) -> Event | None:
    """Return what the other methods make of the attribute: only what none of them can have written is an error."""
    accumulated = 0
    for method in owner.body:
        if not isinstance(method, FUNCTIONS) or method is block:
            continue
        for node in ast.walk(method):
            use = _use(node, attribute, names)
            if use == "other":
                return Event("undecided", line, f"kept in self.{attribute}")
            if use == "accumulated" and isinstance(node, ast.stmt):
                accumulated = accumulated or node.lineno
    if accumulated:
        return Event("accumulated", accumulated)
    inherits = any(not (isinstance(base, ast.Name) and base.id == "object") for base in owner.bases)
    return Event("undecided" if inherits else "escapes", line, f"kept in self.{attribute}")


def _use(node: ast.AST, attribute: str, names: Names) -> str:
    """Tell `self.x += …` from every other use that may write self.x."""
    if isinstance(node, ast.AugAssign):
        target = node.target.value if isinstance(node.target, ast.Subscript) else node.target
        return "accumulated" if _is(target, attribute) else ""
    if isinstance(node, ast.Assign):
        for target in node.targets:
            inner = target.value if isinstance(target, ast.Subscript) else target
            if _is(inner, attribute):
                fresh = isinstance(node.value, ast.Call) and allocation(node.value, names) is not None
                return "" if fresh and inner is target else "other"
        return "other" if _is(node.value, attribute) else ""
    if isinstance(node, ast.Call):
        given = [*node.args, *(k.value for k in node.keywords)]
        receiver = [node.func.value] if isinstance(node.func, ast.Attribute) else []
        if any(_is(n, attribute) for a in (*given, *receiver) for n in ast.walk(a)):
            return "other"
    return ""


def _is(node: ast.AST, attribute: str) -> bool:
    return (
        isinstance(node, ast.Attribute)
        and node.attr == attribute
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    )
