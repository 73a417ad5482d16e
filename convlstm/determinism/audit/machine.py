"""What reading, writing, passing on and returning do to the conditions of an allocation, and what is noted of it."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass, field

from convlstm.determinism.audit.allocations import Allocation, sizeless
from convlstm.determinism.audit.extents import Extent, has_all_axes, shape
from convlstm.determinism.audit.memory import (
    GIVEN_AWAY,
    NONE,
    OTHER,
    UNKNOWN_PART,
    UNWRITTEN,
    WRITTEN,
    Condition,
    Conditions,
    Parts,
    Reference,
    References,
    State,
    merge,
)
from convlstm.determinism.audit.names import Names
from convlstm.determinism.audit.regions import WHOLE, Region, Spans, covers, region
from convlstm.determinism.audit.summaries import Summaries

BOXES = ("box", "bag")  # a container of such memory; one that may hold other things too
STRENGTH = ("accumulated", "read", "partly", "paths", "escapes", "undecided")  # the strongest is reported


@dataclass(frozen=True)
class Event:
    """Something that happened to memory before it was known to be written."""

    kind: str
    line: int
    detail: str = ""


@dataclass(eq=False)
class Frame:
    """One running loop."""

    level: int
    entry: State
    first: bool  # the first of the two times its body is gone through
    spans: Spans = field(default_factory=dict)
    conditional: int = 0  # branches around the current statement, within the loop
    left: list[State] = field(default_factory=list)  # at each break
    again: list[State] = field(default_factory=list)  # at each continue


@dataclass(eq=False)
class Machine:
    """The state of one function while its statements are gone through."""

    names: Names
    call: Callable[[Machine, ast.Call], References]  # what to do with a call: calls.call
    summaries: Summaries | None = None  # None in the first pass over a file
    state: State | None = field(default_factory=State)
    allocations: list[Allocation] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)
    events: dict[int, list[Event]] = field(default_factory=dict)
    extents: dict[int, list[Extent]] = field(default_factory=dict)
    returned: set[int] = field(default_factory=set)  # allocations that left unwritten through return
    returned_other: bool = False  # whether some return gives something else
    finished: set[int] = field(default_factory=set)  # those that were written wholly somewhere
    by_call: dict[ast.Call, int] = field(default_factory=dict)

    def allocate(self, found: Allocation) -> References:
        """Note new unwritten memory and return a reference to it."""
        if found.call not in self.by_call:
            self.by_call[found.call] = len(self.allocations)
            self.allocations.append(found)
            self.extents[len(self.allocations) - 1] = shape(found.call, self.names)
        number = self.by_call[found.call]
        if self.state is not None:
            # In a loop the same line allocates again: what still refers to the memory of before is left alone.
            for name, references in list(self.state.variables.items()):
                kept = frozenset(r for r in references if r.allocation != number)
                if len(kept) < len(references):
                    self.state.variables[name] = kept | {OTHER}
            self.state.memory[number] = {UNWRITTEN: frozenset()}
        return frozenset({Reference(number)})

    def conditions(self, reference: Reference) -> Conditions:
        """Return what the memory may be in; nothing where this path cannot be reached with it."""
        return self.state.memory.get(reference.allocation, {}) if self.state is not None else {}

    def axes(self, number: int) -> int | None:
        """Return the number of axes, None if it is not written out."""
        call = self.allocations[number].call
        known = self.extents[number]
        return len(known) if known and has_all_axes(call, self.names) else None

    def note(self, reference: Reference, kind: str, node: ast.AST, detail: str = "") -> None:
        """Note an event, and say no more about this memory on this path."""
        if kind != "undecided" and sizeless(node, self.allocations[reference.allocation].call, self.names):
            kind = "undecided"
        self.events.setdefault(reference.allocation, []).append(Event(kind, getattr(node, "lineno", 0), detail))
        if self.state is not None:
            self.state.memory[reference.allocation] = {GIVEN_AWAY: frozenset()}

    # Reading ---------------------------------------------------------------------------------------------------------

    def read(self, references: References, node: ast.AST, kind: str = "read", detail: str = "") -> None:
        """Read memory; `kind` is what to call it if nothing was written."""
        for reference in references:
            conditions = self.conditions(reference)
            kinds = {condition[0] for condition in conditions}
            if reference.allocation < 0 or not kinds or kinds <= {"W", "L"}:
                continue
            around = [f for f in self.frames if reference.allocation in f.entry.memory]
            conditional = any(f.conditional for f in around)
            if conditional and any(f.first for f in around):
                continue  # a later iteration tells more
            if kinds == {"U"}:
                self.note(reference, kind, node, detail)
            elif kinds & {"Q", "X", "L"} or ("U" in kinds and conditional):
                if kinds != {"X"}:
                    self.note(reference, "undecided", node)
            elif "U" in kinds:
                self.note(reference, "paths", node)
            else:
                self._read_partly(reference, conditions, node)

    def _read_partly(self, reference: Reference, conditions: Conditions, node: ast.AST) -> None:
        wanted = WHOLE if reference.kind != "part" else reference.region
        if wanted is None or reference.level:
            self.note(reference, "undecided", node)
            return
        extents, axes = self.extents[reference.allocation], self.axes(reference.allocation)
        held = [covers(_now(parts), wanted, extents, axes) for (kind, parts) in conditions if kind == "P"]
        if False in held:
            self.note(reference, "partly", node)
        elif None in held:
            self.note(reference, "undecided", node)

    def escape(self, references: References, node: ast.AST, how: str) -> None:
        """Let memory out of the function: returned, yielded, kept in an object."""
        for reference in references:
            if {c[0] for c in self.conditions(reference)} == {"U"} and how == "returned":
                self.returned.add(reference.allocation)
            if {c[0] for c in self.conditions(reference)} == {"X"}:
                continue
            self.read(frozenset({reference}), node, "escapes", how)

    def give(self, references: References, node: ast.AST) -> None:
        """Pass memory to code that is not seen: it may write it."""
        for reference in references:
            kinds = {condition[0] for condition in self.conditions(reference)}
            if reference.allocation >= 0 and kinds and not kinds <= {"W"} and kinds != {"X"}:
                self.note(reference, "undecided", node)

    # Writing ---------------------------------------------------------------------------------------------------------

    def select(self, reference: Reference, index: ast.expr) -> Reference:
        """Return what `reference[index]` refers to."""
        if reference.allocation < 0 or reference.kind == "box":
            return Reference(reference.allocation, "whole", several=True) if reference.allocation >= 0 else reference
        around = [f for f in self.frames if reference.allocation in f.entry.memory]
        spans: Spans = {}
        levels = {}
        for frame in around:
            for name, span in frame.spans.items():
                spans[name], levels[name] = span, frame.level
        used = {n.id for n in ast.walk(index) if isinstance(n, ast.Name)} & set(spans)
        level = min((levels[name] for name in used), default=0)
        chosen = region(index, self.extents[reference.allocation], spans, self.names)
        if chosen is not None and chosen.is_whole and not level:
            return reference
        if reference.kind == "part":
            return Reference(reference.allocation, "part", None, reference.several)
        return Reference(reference.allocation, "part", chosen, reference.several, level)

    def write(self, references: References) -> None:
        """Write all that the references refer to."""
        for reference in references:
            if reference.allocation < 0 or self.state is None:
                continue
            number = reference.allocation
            if reference.kind == "whole" and not reference.several:
                self.finished.add(number)
                facts = list(self.conditions(reference).values())
                self.state.memory[number] = {WRITTEN: frozenset.intersection(*facts)} if facts else {}
                continue
            chosen = reference.region if reference.kind == "part" and not reference.several else None
            changed: Conditions = {}
            for condition, facts_known in self.conditions(reference).items():
                new = self._write_part(number, condition, chosen, reference.level)
                changed = merge(changed, {new: facts_known})
            self.state.memory[number] = changed

    def write_somewhere(self, references: References) -> None:
        """Write a part that the source does not tell: through a mask, a field, `where=`."""
        self.write(frozenset(Reference(r.allocation, "part", None) for r in references))

    def _write_part(self, number: int, condition: Condition, chosen: Region | None, level: int) -> Condition:
        kind, parts = condition
        if kind in ("W", "X"):
            return condition
        if chosen is None:
            return condition if kind == "L" else ("Q", parts if kind == "Q" else frozenset())
        parts = parts | {(level, chosen)}
        if level:
            return ("L" if kind in ("U", "P", "L") else "Q", parts)
        if kind in ("L", "Q"):
            return (kind, parts)
        extents, axes = self.extents[number], self.axes(number)
        everything = covers(_now(parts), WHOLE, extents, axes)
        if everything:
            self.finished.add(number)
        return WRITTEN if everything else UNKNOWN_PART if everything is None else ("P", parts)

    def finish(self, frame: Frame, state: State | None, broken: bool) -> State | None:
        """Return the state after a loop: what its iterations wrote one by one is now written together."""
        if state is None:
            return None
        for number, conditions in state.memory.items():
            base = frame.entry.memory.get(number, {UNWRITTEN: frozenset()})
            changed: Conditions = {}
            for condition, facts in conditions.items():
                kind, parts = condition
                if kind not in ("L", "Q") or not any(level == frame.level for level, _ in parts):
                    changed = merge(changed, {condition: facts})
                    continue
                done = frozenset((0 if level == frame.level else level, r) for level, r in parts)
                if broken:
                    changed = merge(changed, {UNKNOWN_PART: facts})
                elif kind == "L" and any(level for level, _ in done):
                    changed = merge(changed, {("L", done): facts})
                else:
                    for before in base if kind == "L" else [UNKNOWN_PART]:
                        changed = merge(changed, {self._together(number, before, done): facts})
            state.memory[number] = changed
        return state

    def _together(self, number: int, before: Condition, done: Parts) -> Condition:
        kind, parts = before
        everything = covers(_now(parts | done), WHOLE, self.extents[number], self.axes(number))
        if everything or kind == "W":
            self.finished.add(number)
            return WRITTEN
        if kind in ("U", "P") and everything is False:
            return ("P", frozenset((0, r) for r in _now(parts | done)))
        return before if kind == "X" else UNKNOWN_PART


def _now(parts: Parts) -> frozenset[Region]:
    return frozenset(r for level, r in parts if level == 0)


def boxed(references: References, mixed: bool = False) -> References:
    """Return references to a container of what these refer to, and of other things if `mixed`."""
    kind = "bag" if mixed else "box"
    return frozenset(Reference(r.allocation, kind, None, r.several) for r in references if r.allocation >= 0) or NONE
