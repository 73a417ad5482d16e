"""What becomes of things that come in no fixed order: follows them to where the order shows in a result."""

from __future__ import annotations

import ast
from dataclasses import dataclass

from convlstm.determinism.audit.names import Names
from convlstm.determinism.audit.scopes import FUNCTIONS, Module
from convlstm.determinism.audit.words import words

# Functions whose answer does not depend on the order of what they are given.
INNOCENT = frozenset(
    {f"builtins.{n}" for n in words("sorted len min max any all set frozenset bool isinstance type id repr")}
    | {"collections.Counter", "heapq.heapify", "numpy.sort", "numpy.unique", "math.fsum", "natsort.natsorted"}
)
# Functions that pass the order on to what they return.
CARRIERS = frozenset(
    {f"builtins.{n}" for n in words("list tuple iter reversed map filter zip enumerate")}
    | {"itertools.chain", "itertools.islice", "itertools.chain.from_iterable", "copy.copy"}
)
ARRAYS = frozenset(
    f"{m}.{f}" for m in ("numpy", "cupy", "torch") for f in ("array", "asarray", "fromiter", "tensor", "stack")
)
ORDERLESS_METHODS = words(
    "add discard remove update difference_update intersection_update symmetric_difference_update union "
    "intersection difference symmetric_difference issubset issuperset isdisjoint assertCountEqual assertIn "
    "assertNotIn assertFalse assertTrue count index sort"
)
APPENDERS = words("append appendleft write writelines put insert writerow send")
DEPTH = 6


@dataclass(frozen=True)
class Consequence:
    """Where an order shows, and how."""

    node: ast.AST
    how: str


@dataclass(frozen=True)
class Orders:
    """Follows values of one module."""

    module: Module
    names: Names

    def shows(self, node: ast.AST, sequence: bool, depth: int = DEPTH) -> Consequence | None:
        """Return where the order of `node` shows, None if it is not seen to.

        `sequence` tells a list, which keeps the order for whoever gets it, from a set, which has none to keep.
        """
        parent = self.module.parent_of.get(node)
        if parent is None or depth == 0:
            return None
        if isinstance(parent, ast.Call):
            return self._argument(node, parent, sequence, depth)
        if isinstance(parent, (ast.For, ast.AsyncFor)) and parent.iter is node:
            return self._loop(parent)
        if isinstance(parent, ast.comprehension) and parent.iter is node:
            return self._comprehension(parent, depth)
        if isinstance(parent, ast.Starred):
            outer = self.module.parent_of.get(parent)
            if isinstance(outer, (ast.List, ast.Tuple)):
                return self.shows(outer, True, depth - 1)
            printing = isinstance(outer, ast.Call) and self.names.resolve(outer.func) == {"builtins.print"}
            return Consequence(parent, "is printed") if printing else None
        if not sequence:
            return None
        if isinstance(parent, (ast.Return, ast.Yield, ast.YieldFrom)):
            around = self.module.enclosing(parent, FUNCTIONS)
            # A collection that has no order of its own gives none.
            plain = not isinstance(around, FUNCTIONS) or around.name not in ("__iter__", "__dir__")
            return Consequence(parent, "is returned in that order") if plain else None
        if isinstance(parent, ast.Subscript) and parent.value is node and isinstance(parent.ctx, ast.Load):
            return Consequence(parent, "is indexed")
        if isinstance(parent, ast.BinOp) and isinstance(parent.op, ast.Add):
            return self.shows(parent, True, depth - 1)
        if isinstance(parent, (ast.IfExp, ast.NamedExpr)) and getattr(parent, "test", None) is not node:
            return self.shows(parent, True, depth - 1)
        if isinstance(parent, (ast.Assign, ast.AnnAssign)) and parent.value is node:
            return self._assigned(parent, depth)
        return None

    def _argument(self, node: ast.AST, call: ast.Call, sequence: bool, depth: int) -> Consequence | None:
        if node is call.func:
            return None
        called = self.names.resolve(call.func)
        method = call.func.attr if isinstance(call.func, ast.Attribute) else ""
        if called and called <= INNOCENT:
            return None
        if called & {"builtins.list", "builtins.tuple", *CARRIERS}:
            found = self.shows(call, True, depth - 1)
            listed = called & {"builtins.list", "builtins.tuple"} and not sequence
            return found or (Consequence(call, "becomes a sequence") if listed and self._is_kept(call) else None)
        if called == {"builtins.sum"}:
            return Consequence(call, "is summed")
        if called == {"builtins.next"}:
            return None if self._is_counted(node) else Consequence(call, "gives its first")
        if called & ARRAYS:
            return Consequence(call, "becomes an array")
        if method == "join" and len(call.args) == 1 and not called & {"os.path.join"}:
            return Consequence(call, "is joined")
        if method in ORDERLESS_METHODS or not sequence or self._is_compared_with_one(node, call):
            return None
        if method in ("extend",) and isinstance(call.func, ast.Attribute):
            return None if self._is_sorted(call.func.value) else Consequence(call, "is put in a list")
        return Consequence(call, f"is passed to {method or ast.unparse(call.func)[:40]}()")

    def _is_counted(self, node: ast.AST) -> bool:
        """Tell whether `len(s)` of what is iterated over is looked at nearby: `next(iter(s))` is then the only one."""
        around = self.module.enclosing(node, (*FUNCTIONS, ast.Module))
        inner = node.args[0] if isinstance(node, ast.Call) and node.args else node
        written = ast.unparse(inner)
        return any(
            isinstance(n, ast.Call)
            and isinstance(n.func, ast.Name)
            and n.func.id == "len"
            and ast.unparse(n.args[0]) == written
            for n in (ast.walk(around) if around is not None else ())
            if not isinstance(n, ast.Call) or n.args
        )

    def _is_compared_with_one(self, node: ast.AST, call: ast.Call) -> bool:
        """Tell whether a check expects one element or none: they have one order only."""
        return any(isinstance(a, (ast.List, ast.Tuple)) and len(a.elts) < 2 for a in call.args if a is not node)

    def _is_kept(self, call: ast.Call) -> bool:
        """Tell whether a list made from a set goes where its order may show, as far as that can be seen."""
        parent = self.module.parent_of.get(call)
        if isinstance(parent, (ast.Attribute, ast.Compare, ast.For, ast.comprehension, ast.Expr, ast.Starred, ast.If)):
            return False
        if isinstance(parent, ast.NamedExpr):
            return False
        if isinstance(parent, ast.Call):
            return not self.names.resolve(parent.func) <= INNOCENT or not self.names.resolve(parent.func)
        # The uses of a variable, and what a function returns, have been followed.
        return not isinstance(parent, ast.Return) and not (
            isinstance(parent, ast.Assign) and isinstance(parent.targets[0], ast.Name)
        )

    def _assigned(self, node: ast.Assign | ast.AnnAssign, depth: int) -> Consequence | None:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        (target, *_) = targets
        if not isinstance(target, ast.Name):
            kept = isinstance(target, (ast.Attribute, ast.Subscript)) and not self._is_sorted(target)
            return Consequence(node, "is kept in that order") if kept else None
        if self._is_sorted(target):
            return None
        for use in self._uses(target):
            found = self.shows(use, True, depth - 1)
            if found is not None:
                return found
        return None

    def _uses(self, target: ast.Name) -> list[ast.Name]:
        scope = self.module.scope_of.get(target)
        found = scope.find(target.id) if scope is not None else None
        return [
            n
            for n in (ast.walk(found.node) if found is not None else ())
            if isinstance(n, ast.Name)
            and n.id == target.id
            and isinstance(n.ctx, ast.Load)
            and n.lineno >= target.lineno
        ]

    def _is_sorted(self, target: ast.expr) -> bool:
        """Tell whether `x.sort()` or `sorted(x)` stands in the same function."""
        around = self.module.enclosing(target, (*FUNCTIONS, ast.Module))
        written = ast.unparse(target)
        for node in ast.walk(around) if around is not None else ():
            if not isinstance(node, ast.Call):
                continue
            sorts = isinstance(node.func, ast.Attribute) and node.func.attr == "sort"
            if sorts and isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) == written:
                return True
            by_name = isinstance(node.func, ast.Name) and node.func.id == "sorted"
            if by_name and node.args and ast.unparse(node.args[0]) == written:
                return True
        return False

    def _comprehension(self, part: ast.comprehension, depth: int) -> Consequence | None:
        whole = self.module.parent_of.get(part)
        if isinstance(whole, (ast.SetComp, ast.DictComp)) or whole is None:
            return None
        if isinstance(whole, ast.GeneratorExp):
            outer = self.module.parent_of.get(whole)
            if isinstance(outer, ast.Call) and self.names.resolve(outer.func) == {"builtins.sum"}:
                return None if _is_whole_number(whole.elt) else Consequence(outer, "is summed")
            if isinstance(outer, ast.Call) and self.names.resolve(outer.func) == {"builtins.next"}:
                return None  # the first that meets a condition: often the only one
        return self.shows(whole, True, depth - 1)

    def _loop(self, loop: ast.For | ast.AsyncFor) -> Consequence | None:
        """Return the first statement of a loop that lets the order show."""
        own = {n.id for n in ast.walk(loop) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        for node in (n for s in loop.body for n in ast.walk(s)):
            if isinstance(node, ast.AugAssign) and isinstance(node.op, (ast.Add, ast.Sub, ast.Mult)):
                if not _is_whole_number(node.value) and not self._is_keyed(node.target, own, loop):
                    return Consequence(node, "is accumulated")
            elif isinstance(node, (ast.Yield, ast.YieldFrom)):
                return Consequence(node, "is yielded")
            elif isinstance(node, ast.Call):
                method = node.func.attr if isinstance(node.func, ast.Attribute) else ""
                if self.names.resolve(node.func) == {"builtins.print"}:
                    return Consequence(node, "is printed")
                if method in APPENDERS and isinstance(node.func, ast.Attribute):
                    target = node.func.value
                    if not self._is_sorted(target) and not self._is_keyed(target, own, loop):
                        return Consequence(node, "is put in a list" if method.startswith("append") else "is written")
        return None

    def _is_keyed(self, target: ast.expr, own: set[str], loop: ast.For | ast.AsyncFor) -> bool:
        """Tell whether something belongs to this one iteration: a place named by it, or made in it."""
        if isinstance(target, ast.Subscript):
            return bool({n.id for n in ast.walk(target.slice) if isinstance(n, ast.Name)} & own)
        inside = {
            n.id for s in loop.body for n in ast.walk(s) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
        }
        augmented = {
            n.target.id for n in ast.walk(loop) if isinstance(n, ast.AugAssign) and isinstance(n.target, ast.Name)
        }
        start = target
        while isinstance(start, (ast.Attribute, ast.Call)):
            start = start.func if isinstance(start, ast.Call) else start.value
        looped = {n.id for n in ast.walk(loop.target) if isinstance(n, ast.Name)}
        return isinstance(start, ast.Name) and start.id in (inside - augmented) | looped


def _is_whole_number(node: ast.expr) -> bool:
    """Tell whether something is surely an integer: its sum is the same in any order."""
    if isinstance(node, ast.Constant):
        return isinstance(node.value, int)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return node.func.id in ("len", "int", "ord", "bool")
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return node.func.attr in ("count", "bit_length", "bit_count")
    if isinstance(node, ast.BinOp) and not isinstance(node.op, ast.Div):
        return _is_whole_number(node.left) and _is_whole_number(node.right)
    if isinstance(node, ast.Attribute):
        return node.attr in ("size", "ndim", "nbytes", "st_size")
    return isinstance(node, ast.Compare)
