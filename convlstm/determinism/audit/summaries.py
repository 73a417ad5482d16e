"""What the functions of a file do for their callers: return unwritten memory, write or read what they are given."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass, field

from convlstm.determinism.audit.allocations import Allocation
from convlstm.determinism.audit.scopes import Function


@dataclass(eq=False)
class Summaries:
    """One step across functions: filled by a first pass over the file."""

    ask: Callable[[Function, str], str]
    returns: dict[Function, Allocation] = field(default_factory=dict)
    callers: dict[Function, list[ast.Call]] = field(default_factory=dict)
    _known: dict[tuple[Function, int], str] = field(default_factory=dict)

    def passed_on(self, function: Function, call: ast.Call) -> Allocation | None:
        """Return the memory that a call of `function` returns unwritten."""
        found = self.returns.get(function)
        if found is None:
            return None
        return Allocation(call, f"{function.name}()", call.lineno, origin=f"{found.name} at line {found.line}")

    def parameter(self, function: Function, position: int) -> str:
        """Return what a function does first with an array: "accumulated", "read", "written" or "" if unknown."""
        key = (function, position)
        if key not in self._known:
            self._known[key] = ""  # what calls itself is not known
            parameters = [*function.args.posonlyargs, *function.args.args]
            if position < len(parameters):
                self._known[key] = self.ask(function, parameters[position].arg)
        return self._known[key]
