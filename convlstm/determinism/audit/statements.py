"""Goes through the statements of a function in order, along every path."""

from __future__ import annotations

import ast

from convlstm.determinism.audit import arrays
from convlstm.determinism.audit.allocations import shape_names
from convlstm.determinism.audit.expressions import bind_name, evaluate, give_names, index, iterate, path
from convlstm.determinism.audit.machine import BOXES, Frame, Machine, boxed
from convlstm.determinism.audit.memory import NONE, UNKNOWN_PART, References, State, join
from convlstm.determinism.audit.scopes import FUNCTIONS
from convlstm.determinism.audit.spans import spans_of

DEEP = 4  # loops within loops that are gone through twice each


def run(machine: Machine, body: list[ast.stmt]) -> None:
    """Go through a block."""
    for statement in body:
        if machine.state is None:
            return
        execute(machine, statement)


def execute(machine: Machine, node: ast.stmt) -> None:
    """Go through one statement."""
    if isinstance(node, ast.Assign):
        _assign(machine, node)
    elif isinstance(node, ast.AnnAssign):
        if node.value is not None:
            bind(machine, node.target, evaluate(machine, node.value), node.value)
    elif isinstance(node, ast.AugAssign):
        _augment(machine, node)
    elif isinstance(node, ast.If):
        _if(machine, node)
    elif isinstance(node, (ast.For, ast.AsyncFor, ast.While)):
        _loop(machine, node)
    elif isinstance(node, (ast.With, ast.AsyncWith)):
        for item in node.items:
            value = evaluate(machine, item.context_expr)
            if item.optional_vars is not None:
                bind(machine, item.optional_vars, value, None)
        run(machine, node.body)
    elif isinstance(node, ast.Match):
        _match(machine, node)
    elif isinstance(node, ast.Try) or type(node).__name__ == "TryStar":
        _try(machine, node)
    else:
        _simple(machine, node)


def _simple(machine: Machine, node: ast.stmt) -> None:
    if isinstance(node, ast.Expr):
        evaluate(machine, node.value)
    elif isinstance(node, ast.Return):
        value = evaluate(machine, node.value)
        unwritten = value and all({c[0] for c in machine.conditions(r)} == {"U"} and r.kind == "whole" for r in value)
        machine.returned_other = machine.returned_other or not unwritten
        machine.escape(value, node, "returned")
        machine.state = None
    elif isinstance(node, ast.Raise):
        machine.state = None
    elif isinstance(node, (ast.Break, ast.Continue)):
        if machine.frames and machine.state is not None:
            frame = machine.frames[-1]
            (frame.left if isinstance(node, ast.Break) else frame.again).append(machine.state)
            for around in machine.frames:  # what follows in this loop no longer happens in every iteration
                around.conditional += around is frame
        machine.state = None
    elif isinstance(node, ast.Delete):
        for target in node.targets:
            if machine.state is not None and path(target):
                machine.state.forget(path(target))
    elif isinstance(node, ast.Assert):
        evaluate(machine, node.test)
        if machine.state is not None:
            machine.state = machine.state.assume(node.test, True)
    elif isinstance(node, (*FUNCTIONS, ast.ClassDef)):
        give_names(machine, node)


# Assignment -----------------------------------------------------------------------------------------------------------


def _assign(machine: Machine, node: ast.Assign) -> None:
    (target, *others) = node.targets
    value = node.value
    if isinstance(target, ast.Name) and isinstance(value, ast.BinOp):
        for side in (value.left, value.right):
            if isinstance(side, ast.Name) and side.id == target.id:  # x = x + y
                machine.read(evaluate(machine, side), node, "accumulated")
    if not others and isinstance(target, (ast.Tuple, ast.List)) and isinstance(value, (ast.Tuple, ast.List)):
        starred = any(isinstance(e, ast.Starred) for e in (*target.elts, *value.elts))
        if len(target.elts) == len(value.elts) and not starred:
            values = [evaluate(machine, e) for e in value.elts]
            for part, found, written in zip(target.elts, values, value.elts, strict=True):
                bind(machine, part, found, written)
            return
    if not others and isinstance(target, ast.Tuple) and isinstance(value, (ast.ListComp, ast.GeneratorExp)):
        evaluate(machine, value.generators[0].iter)
        made = evaluate(machine, value.elt)
        for (
            part
        ) in target.elts:  # a, b = (np.zeros(3) for _ in range(2)): several, told from each other by nothing here
            bind(machine, part, made, value.elt)
        return
    if isinstance(target, ast.Name) and isinstance(value, (ast.List, ast.Dict)) and not others:
        _bind_entries(machine, target.id, value)
        return
    found = evaluate(machine, value)
    for each in node.targets:
        bind(machine, each, found, value)


def _bind_entries(machine: Machine, name: str, value: ast.List | ast.Dict) -> None:
    """Follow each entry of a list or dictionary that is written out, `d['a']`, like a variable."""
    parts = value.elts if isinstance(value, ast.List) else value.values
    keys: list[ast.expr | None] = (
        list(value.keys) if isinstance(value, ast.Dict) else [ast.Constant(i) for i in range(len(parts))]
    )
    entries = [(key, evaluate(machine, part)) for key, part in zip(keys, parts, strict=True)]
    bind_name(machine, name, NONE)
    for key, found in entries:
        if isinstance(key, ast.Constant) and machine.state is not None and found:
            machine.state.variables[f"{name}[{key.value!r}]"] = found
        else:
            machine.give(found, value)


def bind(machine: Machine, target: ast.expr, value: References, written: ast.expr | None) -> None:
    """Assign a value to a target: a variable is bound, an array is written."""
    if isinstance(target, ast.Name):
        bind_name(machine, target.id, value)
    elif isinstance(target, ast.Starred):
        bind(machine, target.value, value, written)
    elif isinstance(target, (ast.Tuple, ast.List)):
        machine.give(value, target)
        for part in target.elts:
            bind(machine, part, NONE, None)
    elif isinstance(target, ast.Attribute):
        _bind_attribute(machine, target, value)
    elif isinstance(target, ast.Subscript):
        _store(machine, target, value)


def _bind_attribute(machine: Machine, target: ast.Attribute, value: References) -> None:
    key = path(target)
    base = machine.state.variables.get(path(target.value), NONE) if machine.state is not None else NONE
    if base and target.attr in arrays.PART_ATTRIBUTES:
        machine.write_somewhere(base)
    elif base and target.attr not in ("shape", "dtype"):
        machine.give(base, target)
    if machine.state is None:
        return
    machine.state.forget(key)
    if value and isinstance(target.value, ast.Name):
        machine.state.variables[key] = value
    else:
        machine.give(value, target)


def _store(machine: Machine, target: ast.Subscript, value: References) -> None:
    """`x[index] = value`: writes an array, or puts something in a container."""
    if machine.state is None:
        return
    key = path(target)
    index(machine, target.slice)
    base = evaluate(machine, target.value)
    containers = any(r.kind in BOXES for r in base) or key in machine.state.variables
    if base and not containers:
        machine.read(frozenset(r for r in value if r.kind not in BOXES), target)
        chosen = frozenset(machine.select(r, target.slice) for r in base)
        if isinstance(target.slice, ast.Constant) and isinstance(target.slice.value, str):
            machine.write_somewhere(base)  # one field of records
        else:
            machine.write(chosen)
        return
    machine.state.forget(key)
    if key and value:
        machine.state.variables[key] = value
    elif value and path(target.value):
        name = path(target.value)
        machine.state.variables[name] = machine.state.variables.get(name, NONE) | boxed(value, mixed=True)
    else:
        machine.give(value, target)


def _augment(machine: Machine, node: ast.AugAssign) -> None:
    value = evaluate(machine, node.value)
    target = evaluate(machine, node.target)
    if any(r.kind in BOXES for r in target | value):  # a list that grows
        if isinstance(node.target, ast.Name) and machine.state is not None:
            machine.state.variables[node.target.id] = target | value
        return
    machine.read(value, node)
    machine.read(target, node, "accumulated")
    if isinstance(node.target, ast.Name) and not target and machine.state is not None:
        machine.state.forget(node.target.id)


# Branches -------------------------------------------------------------------------------------------------------------


def _if(machine: Machine, node: ast.If) -> None:
    evaluate(machine, node.test)
    if machine.state is None:
        return
    before = machine.state
    after: list[State | None] = []
    for holds, body in ((True, node.body), (False, node.orelse)):
        machine.state = before.assume(node.test, holds)
        _branch(machine, body)
        after.append(machine.state)
    if not node.orelse and after[0] is not None and after[1] is not None:
        after[1] = _weaken(machine, node, after[1], after[0])
    machine.state = join(after[0], after[1])


def _branch(machine: Machine, body: list[ast.stmt]) -> None:
    before = [(frame, frame.conditional) for frame in machine.frames]
    for frame in machine.frames:
        frame.conditional += 1
    run(machine, body)
    left = machine.state is None
    for frame, conditional in before:
        frame.conditional = conditional + (1 if left and frame is machine.frames[-1] else 0)


def _looks_exhaustive(machine: Machine, node: ast.If) -> bool:
    """Tell whether this is the last of several branches without an else: its author thought it complete."""
    parent = machine.names.module.parent_of.get(node)
    return not node.orelse and isinstance(parent, ast.If) and parent.orelse == [node]


def _weaken(machine: Machine, node: ast.If, state: State, beside: State) -> State:
    """Take what a missing else leaves unwritten as undecided, where its author thought that nothing was left.

    So it is at the end of several branches, and where the test is about the array's own size: `if n > 1: x[1] = …`.
    """
    exhaustive = _looks_exhaustive(machine, node)
    for number, conditions in state.memory.items():
        kinds = {c[0] for c in beside.memory.get(number, {})}
        if kinds == {"X"} or beside.memory.get(number) == conditions:
            continue
        sized = _is_about(node.test, shape_names(machine.allocations[number].call, machine.names))
        if sized or (exhaustive and kinds & {"W", "L"} and {c[0] for c in conditions} == {"U"}):
            state.memory[number] = {UNKNOWN_PART: frozenset()}
    return state


def _is_about(test: ast.expr, sizes: set[str]) -> bool:
    """Tell whether a test is about one of these sizes, or about the length of anything."""
    for part in ast.walk(test):
        compared = [part.left, *part.comparators] if isinstance(part, ast.Compare) else [test]
        if any(isinstance(n, ast.Name) and n.id in sizes for n in compared):
            return True
        if isinstance(part, ast.Attribute) and part.attr in ("size", "shape", "ndim"):
            return True
        if isinstance(part, ast.Name) and part.id == "len":
            return True
    return False


def _match(machine: Machine, node: ast.Match) -> None:
    evaluate(machine, node.subject)
    before = machine.state
    after: State | None = None
    for case in node.cases:
        if before is None:
            return
        machine.state = before.copy()
        _branch(machine, case.body)
        after = join(after, machine.state)
    machine.state = after if after is not None else before


def _try(machine: Machine, node: ast.stmt) -> None:
    body, handlers, orelse, final = (getattr(node, part) for part in ("body", "handlers", "orelse", "finalbody"))
    before = machine.state.copy() if machine.state is not None else None
    run(machine, [*body, *orelse])
    after = machine.state
    for handler in handlers:
        if before is None:
            break
        # Anything the body writes may or may not have been written when it failed.
        machine.state = before.copy()
        if after is not None:
            for number, conditions in machine.state.memory.items():
                if after.memory.get(number) != conditions:
                    machine.state.memory[number] = {UNKNOWN_PART: frozenset()}
        _branch(machine, handler.body)
        after = join(after, machine.state)
    machine.state = after
    if machine.state is None and before is not None:
        return
    run(machine, final)


# Loops ----------------------------------------------------------------------------------------------------------------


def _loop(machine: Machine, node: ast.For | ast.AsyncFor | ast.While) -> None:
    if machine.state is None:
        return
    spans = {} if isinstance(node, ast.While) else spans_of(machine, node.target, node.iter)
    passes = 2 if len(machine.frames) < DEEP else 1
    entry = machine.state
    start: State | None = entry
    for turn in range(passes):
        if start is None:
            break
        machine.state = start.copy()
        frame = Frame(len(machine.frames) + 1, entry, turn == 0 and passes == 2, spans)
        machine.frames.append(frame)
        outer = machine.frames[:-1] if isinstance(node, ast.While) else []
        for around in outer:  # it may not come to this in every iteration of theirs
            around.conditional += 1
        if isinstance(node, ast.While):
            evaluate(machine, node.test)
        else:
            iterate(machine, node.target, node.iter)
        run(machine, node.body)
        machine.frames.pop()
        for around in outer:
            around.conditional -= 1
        for state in frame.again:
            machine.state = join(machine.state, state)
        start = join(entry, machine.state) if turn == 0 else start
    endless = isinstance(node, ast.While) and isinstance(node.test, ast.Constant) and bool(node.test.value)
    broken = bool(frame.left)
    ended = None if endless else machine.finish(frame, machine.state, broken)
    machine.state = ended
    run(machine, node.orelse)
    for state in frame.left:
        machine.state = join(machine.state, machine.finish(frame, state, True))
    if machine.state is None and not endless:
        machine.state = entry if isinstance(node, ast.While) or not _leaves(node.body) else machine.state


def _leaves(body: list[ast.stmt]) -> bool:
    """Tell whether a block always returns: then what follows the loop runs only if there was nothing to loop over."""
    return bool(body) and isinstance(body[-1], (ast.Return, ast.Raise))
