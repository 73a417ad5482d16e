"""What is known of each allocation at one point of a function, and how two paths meet.

An allocation's state is a set of conditions it may be in, each with the facts ("flag is true") that hold then:

    U        nothing has been written
    P        these parts, and no others, have been written
    L        these parts will have been written when the loops that are running end
    Q        something has been written; whether all of it, the source does not tell
    W        all of it has been written
    X        given to code that is not seen; nothing more is said about it
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, field

from convlstm.determinism.audit.regions import Region

Fact = tuple[str, bool]
Facts = frozenset[Fact]
Parts = frozenset[tuple[int, Region]]  # the loop at whose end the part is written, 0 for at once
Condition = tuple[str, Parts]
Conditions = dict[Condition, Facts]

UNWRITTEN: Condition = ("U", frozenset())
UNKNOWN_PART: Condition = ("Q", frozenset())
WRITTEN: Condition = ("W", frozenset())
GIVEN_AWAY: Condition = ("X", frozenset())
MANY = 6  # conditions beyond which nothing is decided any more


@dataclass(frozen=True)
class Reference:
    """What a value refers to: an allocation, a part of it, or a container that holds it."""

    allocation: int
    kind: str = "whole"  # "whole", "part", "box"
    region: Region | None = None
    several: bool = False  # one of many that the same line allocated
    level: int = 0  # the loop that must end before the part has been gone over


OTHER = Reference(-1)  # any value that is no allocation
References = frozenset[Reference]
NONE: References = frozenset()


@dataclass(eq=False)
class State:
    """Variables and allocations at one point; None where a State is expected means that the point is never reached."""

    variables: dict[str, References] = field(default_factory=dict)
    memory: dict[int, Conditions] = field(default_factory=dict)

    def copy(self) -> State:
        """Return a state that can change on its own."""
        return State(dict(self.variables), {k: dict(v) for k, v in self.memory.items()})

    def assume(self, test: ast.expr | None, holds: bool) -> State:
        """Return the state on the path where a test has this outcome."""
        state = self.copy()
        literals = facts_of(test, holds) if test is not None else []
        for number, conditions in state.memory.items():
            state.memory[number] = {
                condition: known | frozenset(literals)
                for condition, known in conditions.items()
                if not any((text, not value) in known for text, value in literals)
            }
        return state

    def under(self, name: str) -> list[str]:
        """Return the variables that stand for parts of another: "self.x" for "self", "d['a']" for "d"."""
        return [key for key in self.variables if key.startswith((f"{name}.", f"{name}["))]

    def forget(self, name: str) -> None:
        """Drop a variable, its parts, and the facts about it: it becomes another."""
        indexed = [key for key in self.variables if f"[{name}]" in key or f"[{name}." in key]
        for key in [*self.under(name), *indexed, name]:
            self.variables.pop(key, None)
        stale = {fact for c in self.memory.values() for known in c.values() for fact in known if name in fact[0]}
        for conditions in self.memory.values() if stale else ():
            for condition in conditions:
                conditions[condition] -= stale


def join(first: State | None, second: State | None) -> State | None:
    """Return what is known where two paths meet."""
    if first is None or second is None:
        return first if second is None else second
    joined = State()
    for name in {**first.variables, **second.variables}:
        one, other = first.variables.get(name), second.variables.get(name)
        if one == other and one is not None:
            joined.variables[name] = one
        else:
            joined.variables[name] = (one or frozenset({OTHER})) | (other or frozenset({OTHER}))
    for number in {**first.memory, **second.memory}:
        joined.memory[number] = merge(first.memory.get(number, {}), second.memory.get(number, {}))
    return joined


def merge(first: Conditions, second: Conditions) -> Conditions:
    """Return every condition of either; facts hold if both paths agree on them."""
    merged = dict(first)
    for condition, known in second.items():
        merged[condition] = merged[condition] & known if condition in merged else known
    if len(merged) > MANY:
        return {UNKNOWN_PART: frozenset()}
    return merged


def facts_of(test: ast.expr, holds: bool) -> list[Fact]:
    """Return the plain facts that follow from a test's outcome."""
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        return facts_of(test.operand, not holds)
    if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And) == holds:
        return [fact for value in test.values for fact in facts_of(value, holds)]
    if isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], (ast.IsNot, ast.NotEq)):
        opposite = ast.Is() if isinstance(test.ops[0], ast.IsNot) else ast.Eq()
        return [(ast.unparse(ast.Compare(test.left, [opposite], test.comparators)), not holds)]
    return [(ast.unparse(test), holds)]
