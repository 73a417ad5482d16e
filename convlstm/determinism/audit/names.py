"""What an expression names: "numpy.empty_like" for `e` after `from numpy import empty_like as e`, through aliases."""

from __future__ import annotations

import ast
import builtins
import re

from convlstm.determinism.audit.scopes import FUNCTIONS, Binding, Function, Module

BOTH = frozenset({"numpy", "cupy"})  # what `xp` stands for
NOTHING: frozenset[str] = frozenset()
BUILTINS = frozenset(dir(builtins))
# `get_array_module(x)` and its kin return the module that x belongs to.
ARRAY_MODULE = re.compile(r"(^|\.)(get_array_module|array_namespace|get_array_namespace|get_namespace|get_xp)$")
MOVED = (
    (re.compile(r"^(numpy|cupy)\._?core(\.[\w.]+)?\.(\w+)$"), r"\1.\3"),
    (re.compile(r"^numpy\.(matlib|ma|matrixlib)\.(empty|empty_like|rand|randn)$"), r"numpy.\2"),
    (re.compile(r"^numpy\.random\.(mtrand|_generator|_pcg64|_philox|bit_generator)\."), "numpy.random."),
    (re.compile(r"^autograd\.numpy\b"), "numpy"),
    (re.compile(r"^(cupy|cupyx)\.cuda\.memory\."), "cupy.cuda."),
)


def canonical(dotted: str) -> str:
    """Return the name under which the tables know a function that libraries offer in several places."""
    for pattern, replacement in MOVED:
        dotted = pattern.sub(replacement, dotted)
    return dotted


class Names:
    """Resolves the expressions of one module. An empty answer means: not known."""

    def __init__(self, module: Module) -> None:
        self.module = module
        self._known: dict[ast.AST, frozenset[str]] = {}

    def resolve(self, node: ast.AST | None) -> frozenset[str]:
        """Return every dotted name that the expression may stand for, none if one of them is not known."""
        if node is None:
            return NOTHING
        if node not in self._known:
            self._known[node] = NOTHING  # what leads to itself is not known
            self._known[node] = self._resolve(node)
        return self._known[node]

    def _resolve(self, node: ast.AST) -> frozenset[str]:
        if isinstance(node, ast.Name):
            return self._name(node)
        if isinstance(node, ast.Attribute):
            return self._attribute(node.value, node.attr)
        if isinstance(node, ast.IfExp):
            return self._together([node.body, node.orelse])
        if isinstance(node, ast.BoolOp):
            return self._together(node.values)
        if isinstance(node, ast.Call):
            return self._call(node)
        return NOTHING

    def _together(self, nodes: list[ast.expr]) -> frozenset[str]:
        """Return the union, without None; nothing if any of them is unknown."""
        found = [self.resolve(n) for n in nodes if not (isinstance(n, ast.Constant) and n.value is None)]
        return frozenset().union(*found) if found and all(found) else NOTHING

    def _name(self, node: ast.Name) -> frozenset[str]:
        bindings = self.bindings(node)
        if not bindings:
            if node.id in BUILTINS:
                return frozenset({f"builtins.{node.id}"})
            known = [m for m in self.module.starred if m.partition(".")[0] in ("numpy", "cupy", "torch", "random")]
            return frozenset({canonical(f"{known[-1]}.{node.id}")}) if known else NOTHING
        found: set[str] = set()
        for binding in bindings:
            if binding.kind == "import":
                found.add(canonical(binding.dotted))
                continue
            if binding.kind == "declared" or _is_none(binding.node):
                continue
            names = self.resolve(binding.node) if _is_value(binding) else NOTHING
            if not names and binding.kind == "parameter" and binding.node is None and node.id == "xp":
                names = BOTH
            if not names:
                return NOTHING
            found |= names
        return frozenset(found)

    def _attribute(self, value: ast.expr, attribute: str) -> frozenset[str]:
        base = self.resolve(value)
        if base:
            return frozenset(canonical(f"{name}.{attribute}") for name in base)
        if isinstance(value, ast.Name) and value.id in ("self", "cls"):
            owner = self.module.class_of(value)
            kept = self.module.attributes.get(owner, {}).get(attribute) if owner is not None else None
            if kept:
                return self._together(kept) or (BOTH if attribute == "xp" else NOTHING)
        return BOTH if attribute == "xp" else NOTHING

    def _call(self, node: ast.Call) -> frozenset[str]:
        called = node.func
        written = ast.unparse(called) if isinstance(called, (ast.Name, ast.Attribute)) else ""
        if ARRAY_MODULE.search(written):
            return BOTH
        names = self.resolve(called)
        first = node.args[0] if node.args else None
        if names == {"functools.partial"} and first is not None:
            return self.resolve(first)
        text = node.args[-1] if node.args else None
        if isinstance(text, ast.Constant) and isinstance(text.value, str):
            if names == {"builtins.getattr"} and len(node.args) == 2 and first is not None:
                return self._attribute(first, text.value)
            if names & {"importlib.import_module", "builtins.__import__"} and len(node.args) == 1:
                return frozenset({canonical(text.value)})
        return NOTHING

    def bindings(self, node: ast.Name) -> list[Binding]:
        """Return all that this use of a name may mean, as far as the scope tells."""
        scope = self.module.scope_of.get(node)
        found = scope.find(node.id) if scope is not None else None
        return found.bindings[node.id] if found is not None else []

    def only_value(self, node: ast.AST) -> Binding | None:
        """Return what a name is bound to, if it is bound once, to a value."""
        if not isinstance(node, ast.Name):
            return None
        bindings = [b for b in self.bindings(node) if b.kind != "declared"]
        if len(bindings) != 1 or bindings[0].kind != "value" or bindings[0].dotted:
            return None
        return bindings[0]

    def function(self, called: ast.expr) -> Function | None:
        """Return the function of this file that is called: by its only name, or as a method of the same class."""
        if isinstance(called, ast.Name):
            bindings = self.bindings(called)
            if len(bindings) == 1 and isinstance(bindings[0].node, FUNCTIONS):
                return bindings[0].node
        elif isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name) and called.value.id == "self":
            owner = self.module.class_of(called)
            return self.module.method(owner, called.attr) if owner is not None else None
        return None


def _is_none(node: ast.AST | None) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _is_value(binding: Binding) -> bool:
    return binding.kind in ("value", "parameter") and binding.unpacked is None and not binding.dotted
