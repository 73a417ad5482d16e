"""Memory that is read before it is written: every function and the module itself, then what one hands to another."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from convlstm.determinism.audit.allocations import LIKE, SHAPED, Allocation, allocation
from convlstm.determinism.audit.calls import call
from convlstm.determinism.audit.findings import Raw
from convlstm.determinism.audit.machine import STRENGTH, Event, Machine
from convlstm.determinism.audit.memory import Reference
from convlstm.determinism.audit.names import Names
from convlstm.determinism.audit.scopes import FUNCTIONS, Function, Module
from convlstm.determinism.audit.statements import run
from convlstm.determinism.audit.stored import stored_events
from convlstm.determinism.audit.summaries import Summaries

RULES = {
    "accumulated": "uninitialised-accumulated",
    "read": "uninitialised-read",
    "partly": "uninitialised-partly-written",
    "paths": "uninitialised-partly-written",
    "escapes": "uninitialised-escapes",
    "undecided": "uninitialised-undecided",
}
# Functions that say by their name that what they return is not initialised.
HONEST = frozenset(name.rpartition(".")[2] for name in {*SHAPED, *LIKE})


def uninitialised(module: Module, names: Names) -> Iterator[Raw]:
    """Yield what is read before it is written."""
    allocating = [c for c in module.calls if allocation(c, names) is not None]
    if not allocating:
        return
    summaries = Summaries(lambda function, name: _first_use(function, name, names))
    blocks = _blocks(module, allocating)
    for block in blocks:
        machine = _go(block, names, None)
        if isinstance(block, FUNCTIONS) and machine.returned and not machine.returned_other:
            summaries.returns[block] = machine.allocations[min(machine.returned)]
    calling = [c for c in module.calls if names.function(c.func) in summaries.returns]
    for calls_it in calling:
        function = names.function(calls_it.func)
        if function is not None:
            summaries.callers.setdefault(function, []).append(calls_it)
    for block in _blocks(module, [*allocating, *calling]):
        yield from _findings(block, _go(block, names, summaries), summaries, module, names)


def _blocks(module: Module, calls: list[ast.Call]) -> list[ast.Module | Function]:
    """Return the functions, and the module, in whose own statements one of these calls stands."""
    found: dict[ast.AST, None] = {}
    for each in calls:
        around = module.enclosing(each, (*FUNCTIONS, ast.Lambda))
        while isinstance(around, ast.Lambda):
            around = module.enclosing(around, (*FUNCTIONS, ast.Lambda))
        found[around or module.tree] = None
    return [b for b in (*module.functions, module.tree) if b in found]


def _go(block: ast.Module | Function, names: Names, summaries: Summaries | None) -> Machine:
    machine = Machine(names, call, summaries)
    run(machine, block.body)
    return machine


def _first_use(function: Function, parameter: str, names: Names) -> str:
    """Return what a function does first with an array that it is given."""
    machine = Machine(names, call)
    # A stand-in for the caller's allocation: its extents are not known here.
    machine.allocate(Allocation(ast.Call(ast.Name("given", ast.Load()), [], []), "given", function.lineno))
    if machine.state is not None:
        machine.state.variables[parameter] = frozenset({Reference(0)})
    run(machine, function.body)
    kinds = {event.kind for event in machine.events.get(0, [])}
    if len(kinds) == 1 and kinds <= {"accumulated", "read"}:
        return kinds.pop()
    written = machine.state is not None and {c[0] for c in machine.state.memory[0]} == {"W"}
    return "written" if written and not kinds else ""


def _findings(
    block: ast.Module | Function, machine: Machine, summaries: Summaries, module: Module, names: Names
) -> Iterator[Raw]:
    ends = stored_events(block, machine, module, names)
    called = {names.function(c.func) for c in module.calls} if machine.events else set()
    helper = block if isinstance(block, FUNCTIONS) else None
    for number, found in enumerate(machine.allocations):
        events = [*machine.events.get(number, []), *ends.get(number, [])]
        if not events:
            continue
        event = min(events, key=lambda e: (STRENGTH.index(e.kind), e.line))
        looked_at = helper is not None and (helper in called or helper.name in HONEST)
        if event.kind == "escapes" and looked_at:
            continue  # its callers are looked at instead
        yield Raw(found.call, RULES[event.kind], _message(found, event))


def _message(found: Allocation, event: Event) -> str:
    origin = f" (allocated by {found.origin})" if found.origin else ""
    what = f"{found.name} allocated here{origin}"
    detail = f" {event.detail}" if event.detail else ""
    if event.kind == "accumulated":
        return f"{what} is accumulated into at line {event.line}{detail} before anything was written to it; use zeros"
    if event.kind == "read":
        return f"{what} is read at line {event.line}{detail} before anything was written to it"
    if event.kind == "partly":
        why = event.detail or "only a part of it has been written by then"
        return f"{what} is partly written and then read at line {event.line}: {why}"
    if event.kind == "paths":
        return f"{what} is partly written: read at line {event.line}, and on some paths nothing was written by then"
    if event.kind == "escapes":
        return f"{what} escapes uninitialised: {event.detail} at line {event.line} before anything was written to it"
    return f"{what} is used at line {event.line}; the source does not tell whether all of it was written by then"
